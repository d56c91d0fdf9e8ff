import time

import pytest

from sklgap.training import _step_timer
from sklgap.training._step_timer import StepTimer
from tests.tiny import Mlp, blobs, small

X, Y = blobs(60)


class Slow(Mlp):
    """Takes 5 ms for each training step."""

    def forward(self, X):
        if self.training:
            time.sleep(0.005)
        return super().forward(X)


def _timed(**params):
    timer = StepTimer()
    model = small(callbacks=[("timer", timer)], **params)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert timer.stopped_
    assert not hasattr(model, "net_")
    return timer


def test_seconds_of_a_step():
    timer = _timed(net=Slow, batch_size=10)
    # sleep is never shorter than asked for; the rest is a tiny net's step on a busy machine.
    assert 0.005 <= timer.seconds_ < 0.5
    assert timer.n_samples_ == 60
    assert timer.updates_per_batch_ == 1


@pytest.mark.parametrize(("size", "batches"), [(60, 1), (30, 2), (20, 3), (1, 30)])
def test_it_ends_within_the_first_epoch(size, batches, monkeypatch):
    monkeypatch.setattr(_step_timer, "SECONDS", 1e9)
    timer = _timed(net=Mlp, batch_size=size)
    assert len(timer.times_) - 1 == batches
    assert timer.net_.n_updates_ == batches


def test_it_ends_when_it_has_measured_long_enough(monkeypatch):
    monkeypatch.setattr(_step_timer, "SECONDS", 0.0)
    assert len(_timed(net=Mlp, batch_size=1).times_) - 1 == 3


def test_several_updates_per_batch():
    timer = _timed(batch_size=10, proximal_lambda=0.1, proximal_steps=3)
    assert timer.updates_per_batch_ == 3


def test_rows_held_out_by_a_train_split_are_not_counted():
    from skorch.dataset import ValidSplit

    assert _timed(batch_size=10, train_split=ValidSplit(5, stratified=True)).n_samples_ == 48


def test_a_users_own_iterator():
    assert _timed(net=Mlp, batch_size=10, iterator_train__shuffle=True).seconds_ > 0
