import contextlib
import math
import pickle
from types import SimpleNamespace

import pytest
import torch
from skorch.callbacks import Callback
from skorch.history import History

from sklgap.training._callbacks import EpochRecorder, StoppingRule, TrainingProgress
from tests.tiny import blobs, small


class FakeHistory(list):
    def __getitem__(self, key):
        return super().__getitem__(key[0])[key[1]] if isinstance(key, tuple) else super().__getitem__(key)


def stopping_point(losses, *, tol=1e-4, n_iter_no_change=3, target_loss=None, updates=1, budget=None, patience=None):
    """Feed made-up losses to the rule; return (number of epochs seen, reason), reason None if it never stopped."""
    net = SimpleNamespace(history=FakeHistory(), n_updates_=0, max_updates_=budget, patience_updates_=patience)
    rule = StoppingRule(tol, n_iter_no_change, target_loss)
    rule.on_train_begin(net)
    for loss in losses:
        net.n_updates_ += updates
        net.history.append({"train_loss": loss})
        rule.on_epoch_end(net)
        if net.stopping_reason_ is not None:
            break
    return len(net.history), net.stopping_reason_


def test_falling_loss_never_stops():
    assert stopping_point([0.9**i for i in range(50)]) == (50, None)


def test_constant_loss_stops_after_the_patience():
    # The first epoch sets the best loss, three more do not improve on it.
    assert stopping_point([1.0] * 20, n_iter_no_change=3) == (4, "loss ceased to improve")
    assert stopping_point([1.0] * 20, n_iter_no_change=1) == (2, "loss ceased to improve")


def test_rising_and_noisy_losses_are_held_against_the_best():
    losses = [1.0, 0.5, 0.7, 0.6, 0.55, 0.1]
    assert stopping_point(losses, n_iter_no_change=3) == (5, "loss ceased to improve")
    assert stopping_point(losses, n_iter_no_change=4) == (6, None)


def test_improvement_starts_the_patience_anew():
    assert stopping_point([1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5], n_iter_no_change=3) == (7, "loss ceased to improve")


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_tol_is_a_fraction_of_the_best_loss(scale):
    """The rule does not depend on the unit of the loss; falls of 5 % count for tol=0.01 and do not for tol=0.1."""
    losses = [scale * 0.95**i for i in range(12)]
    assert stopping_point(losses, tol=0.01, n_iter_no_change=2) == (12, None)
    # Two epochs at 5 % each make 9.75 % of the best: still no improvement.
    assert stopping_point(losses, tol=0.1, n_iter_no_change=2) == (3, "loss ceased to improve")


def test_slow_fall_accumulates_against_the_best():
    """3 % per epoch are less than tol=0.05 but add up within the patience."""
    assert stopping_point([0.97**i for i in range(30)], tol=0.05, n_iter_no_change=3) == (30, None)


def test_tol_zero_wants_any_fall():
    assert stopping_point([1 - 1e-9 * i for i in range(10)], tol=0.0, n_iter_no_change=1) == (10, None)
    assert stopping_point([1.0, 1.0], tol=0.0, n_iter_no_change=1) == (2, "loss ceased to improve")


def test_tol_none_never_stops_a_finite_loss():
    assert stopping_point([1.0] * 30, tol=None) == (30, None)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("tol", [None, 1e-4])
def test_loss_that_is_no_number_stops_at_once(bad, tol):
    assert stopping_point([1.0, bad, 0.5], tol=tol) == (2, "loss not finite")


@pytest.mark.parametrize("tol", [None, 1e-4])
def test_target_loss_is_inclusive(tol):
    assert stopping_point([0.5, 0.25, 0.1], tol=tol, target_loss=0.25) == (2, "target loss reached")
    assert stopping_point([0.5, 0.26], tol=tol, target_loss=0.25) == (2, None)


def test_budget_of_updates():
    assert stopping_point([1.0, 0.5, 0.2, 0.1], updates=5, budget=15) == (3, "budget spent")
    assert stopping_point([1.0] * 4, tol=None, updates=5, budget=15) == (3, "budget spent")


def test_patience_in_updates_replaces_that_in_epochs():
    # Best at 2 updates; 12 updates = 6 epochs later it stops, though n_iter_no_change=1.
    result = stopping_point([1.0] * 20, n_iter_no_change=1, updates=2, budget=1000, patience=12)
    assert result == (7, "loss ceased to improve")


def test_a_second_training_starts_with_fresh_patience():
    net = SimpleNamespace(history=FakeHistory(), n_updates_=0, max_updates_=None, patience_updates_=None)
    rule = StoppingRule(1e-4, 2, None)
    for _ in range(2):
        rule.on_train_begin(net)
        assert net.stopping_reason_ is None
        for loss in (1.0, 1.0):
            net.history.append({"train_loss": loss})
            rule.on_epoch_end(net)
            assert net.stopping_reason_ is None


def test_recorder_weights_unequal_batches_by_their_rows():
    net = SimpleNamespace(
        history=History(),
        callbacks_=[],
        get_default_callbacks=list,
        epoch_batch_size_=None,
        optimizer_=SimpleNamespace(param_groups=[{"lr": 0.25}]),
        lr_factor_=1.0,
        n_updates_=7,
        module_=SimpleNamespace(named_parameters=lambda: [("w", torch.tensor([3.0, 4.0]))]),
        module_start_={"w": torch.zeros(2)},
    )
    net.history.new_epoch()
    recorder = EpochRecorder()
    recorder.on_epoch_begin(net)
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    recorder.on_batch_end(net, (None, torch.tensor([0, 1, 0])), training=True, loss=torch.tensor(1.0), y_pred=logits)
    recorder.on_batch_end(
        net, (None, torch.tensor([1])), training=True, loss=torch.tensor(5.0), y_pred=torch.tensor([[0.0, 1.0]])
    )
    recorder.on_batch_end(net, (None, torch.tensor([0])), training=False, loss=torch.tensor(99.0), y_pred=logits[:1])
    recorder.on_epoch_end(net)
    assert net.history[-1] == {
        "batches": [],
        "train_loss": (3 * 1.0 + 1 * 5.0) / 4,
        "train_loss_best": True,
        "train_accuracy": 3 / 4,
        "batch_size": 3,
        "lr": 0.25,
        "n_updates": 7,
        "weight_distance": 5.0,
    }


class CatchBar(Callback):
    """Looks whether the progress bar was closed."""

    closed = None

    def on_train_end(self, net, **kwargs):
        bar = dict(net.callbacks_)["training_progress"].bar_
        type(self).closed = bar.disable  # tqdm sets it when a bar is closed


@pytest.mark.parametrize("adapted", [False, True])
def test_progress_bar(capsys, adapted):
    X, y = blobs()
    small(verbose=1, max_epochs=3, regime_adaptation=adapted, batch_size=30, callbacks=[CatchBar()]).fit(X, y)
    err = capsys.readouterr().err
    assert "epoch" in err
    assert "train_loss=" in err
    assert "batch_size=30" in err
    assert ("/3" in err) is not adapted  # the number of epochs is known beforehand only without adaptation
    assert CatchBar.closed


def test_silent_by_default(capsys):
    small().fit(*blobs())
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_progress_pickles_while_it_runs(capsys):
    progress = TrainingProgress()
    progress.on_train_begin(SimpleNamespace(checkpoint_=None, regime_adaptation=False, max_epochs=2))
    with contextlib.closing(progress.bar_):
        assert "bar_" not in vars(pickle.loads(pickle.dumps(progress)))
    capsys.readouterr()
