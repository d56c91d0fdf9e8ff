"""``n_threads`` of the estimator: what ``"auto"`` chooses, where it holds, and that it is part of saved work."""

import pickle
import threading
import typing

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from sklgap import compare_regimes
from sklgap.estimator import _threads as chosen
from sklgap.estimator._threads import SMALL_WORK, multiply_adds, resolved_threads
from sklgap.memory import saved_work
from sklgap.nets import F1
from sklgap.regimes import DynamicSampling, SwitchBatch
from sklgap.remedies import SAM
from tests.tiny import Mlp, TinyF1, blobs, interrupting_at, same_weights, small

X, Y = blobs()


class Watched(Mlp):
    """Notes how many threads torch may use: when it is made, in training and in evaluation mode."""

    threads: typing.ClassVar[dict[str, set[int]]] = {}

    def __init__(self):
        super().__init__()
        Watched.threads.setdefault("made", set()).add(torch.get_num_threads())

    def forward(self, X):
        mode = "training" if self.training else "evaluation"
        Watched.threads.setdefault(mode, set()).add(torch.get_num_threads())
        return super().forward(X)


@pytest.fixture(autouse=True)
def torch_has_two():
    Watched.threads = {}
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def as_work_is_large(monkeypatch):
    monkeypatch.setattr(chosen, "SMALL_WORK", 0)


# -- what is chosen ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_threads", "expected"), [("auto", 1), (None, 2), (1, 1), (2, 2), (np.int64(3), 3)])
def test_a_small_net(n_threads, expected):
    model = small(net=Watched, n_threads=n_threads).fit(X, Y)
    assert model.n_threads_ == expected
    assert Watched.threads["training"] == {expected}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("n_threads", "expected"), [("auto", 2), (None, 2), (1, 1), (3, 3)])
def test_a_large_net(n_threads, expected, monkeypatch):
    as_work_is_large(monkeypatch)
    assert small(net=Watched, n_threads=n_threads).fit(X, Y).n_threads_ == expected
    assert Watched.threads["training"] == {expected}


@pytest.mark.parametrize("n_threads", ["auto", None, 1, 3])
def test_a_net_is_made_with_one_thread(n_threads):
    small(net=Watched, n_threads=n_threads).fit(X, Y)
    assert Watched.threads["made"] == {1}


@pytest.mark.parametrize("n_threads", [0, -1, 1.0, True, "all", "1", [1], 1025, 10**30, float("nan")])
def test_bad_n_threads(n_threads):
    with pytest.raises(ValueError, match="n_threads must be 'auto', None or an integer from 1 to 1024; got"):
        small(n_threads=n_threads).fit(X, Y)
    with pytest.raises(ValueError, match="n_threads must be 'auto', None or an integer from 1 to 1024; got"):
        small().fit(X, Y).set_params(n_threads=n_threads).predict(X)


def test_the_limit_of_small_work():
    assert resolved_threads("auto", SMALL_WORK // 10, 10, "cpu") == 1
    assert resolved_threads("auto", SMALL_WORK // 10 + 1, 10, "cpu") == 2
    assert resolved_threads("auto", 1, 1, "cuda") == 2
    assert resolved_threads(5, 1, 1, "cuda") == 5


# The papers' nets at the papers' sizes take all cores, small nets one: (units, inputs, batch).
@pytest.mark.parametrize(
    ("width", "n_features", "batch_size", "expected"),
    [(64, 40, 32, 1), (64, 40, 400, 1), (64, 784, 32, 1), (64, 784, 400, 1), (512, 784, 256, 2), (512, 784, 6000, 2)],
)
def test_f1(width, n_features, batch_size, expected):
    work = multiply_adds(F1(n_features, 10, width=width).eval(), torch.zeros(2, n_features))
    assert resolved_threads("auto", work, batch_size, "cpu") == expected


REGIMES = {
    "constant": ({"batch_size": 20}, 20),
    "micro-batches": ({"batch_size": 20, "micro_batch_size": 5}, 5),
    "sub-batches": ({"batch_size": 20, "remedies": [SAM(sub_batch_size=4)]}, 4),
    "switch": ({"batch_regime": SwitchBatch(1, first=10, then=30)}, 30),
    "adaptive": ({"batch_regime": DynamicSampling(initial=8, largest=40)}, 8),
}


@pytest.mark.parametrize("case", REGIMES)
def test_rows_at_once(case):
    params, rows = REGIMES[case]
    assert small(**params).fit(X, Y).net_.rows_at_once(len(X)) == rows


def test_a_warm_start_chooses_again(monkeypatch):
    model = small(warm_start=True, batch_size=10).fit(X, Y)
    assert model.n_threads_ == 1
    monkeypatch.setattr(chosen, "SMALL_WORK", 30 * model._row_work)
    assert model.set_params(batch_size=30).fit(X, Y).n_threads_ == 1
    assert model.set_params(batch_size=31).fit(X, Y).n_threads_ == 2


# -- the work of a row -------------------------------------------------------------------------------------------------


class Lookup(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(1000, 8), nn.Linear(8, 3)

    def forward(self, X):
        return self.out(self.table(X.long().clamp(0, 9)).sum(dim=1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 50, batch_first=True), nn.Linear(50, 3)

    def forward(self, X):
        return self.out(self.lstm(X[:, None])[0][:, -1])


class Broken(Mlp):
    def forward(self, X):
        raise RuntimeError("not here")


WORK = {
    "weights and biases": (nn.Linear(4, 3), (4,), 4 * 3 + 3),
    "a convolution uses weights many times": (nn.Conv2d(2, 5, 3, padding=1), (2, 6, 7), 6 * 7 * 5 * 2 * 9),
    "groups": (nn.Conv2d(4, 4, 3, groups=2, bias=False), (4, 5, 5), 9 * 4 * 2 * 9),
    "shared": (nn.Sequential(*[nn.Linear(4, 4)] * 5), (4,), 5 * 4 * 4),
    "lookups": (Lookup(), (4,), 8 * 3 + 3),
    "not counted by torch": (Recurrent(), (4,), 4 * 50 * (4 + 50 + 2) + 50 * 3 + 3),
    "not to be counted": (Broken(), (4,), 4 * 8 + 8 + 8 * 3 + 3),
}


@pytest.mark.parametrize("case", WORK)
@pytest.mark.parametrize("n_rows", [1, 2, 6])
def test_multiply_adds(case, n_rows):
    module, shape, expected = WORK[case]
    assert multiply_adds(module.eval(), torch.zeros(n_rows, *shape)) == expected


# -- where it holds ----------------------------------------------------------------------------------------------------


def test_predictions(monkeypatch):
    model = small(net=Watched).fit(X, Y)

    def seen(n_threads):
        Watched.threads = {}
        model.set_params(n_threads=n_threads).predict_proba(X)
        assert torch.get_num_threads() == 2
        return Watched.threads["evaluation"]

    assert [seen(n) for n in ("auto", None, 1, 3)] == [{1}, {2}, {1}, {3}]
    as_work_is_large(monkeypatch)
    assert seen("auto") == {2}


def test_the_passes_at_the_end_of_a_fit():
    small(net=Watched, n_threads=3).fit(X, Y)
    assert Watched.threads["evaluation"] == {1, 3}  # tried with one, evaluated with three


def test_an_experiment_measures_with_the_threads_of_its_fits():
    compare_regimes(small(net=Watched), X, Y, X, Y, n_trials=1, epsilon=[1e-3], random_state=0, verbose=0)
    assert set().union(*Watched.threads.values()) == {1}


def test_put_back_after_ctrl_c():
    with pytest.raises(KeyboardInterrupt):
        small(net=interrupting_at(20), batch_size=8, max_epochs=9).fit(X, Y)
    assert torch.get_num_threads() == 2


class Fails(Callback):
    def __init__(self, when):
        def fail(net, **kwargs):
            raise RuntimeError("a callback's own")

        setattr(self, when, fail)


@pytest.mark.parametrize("when", ["on_train_begin", "on_batch_end", "on_epoch_end", "on_train_end"])
def test_put_back_after_an_error(when):
    with pytest.raises(RuntimeError, match="a callback's own"):
        small(net=TinyF1, callbacks=[Fails(when)]).fit(X, Y)
    assert torch.get_num_threads() == 2


def test_put_back_after_bad_input():
    with pytest.raises(ValueError, match="net must return 4 outputs"):
        small(net=Mlp).fit(X, np.arange(len(X)) % 4)
    assert torch.get_num_threads() == 2


def test_fits_in_threads_at_once():
    wanted = {"auto": 1, 1: 1, 2: 2, 3: 3}
    fitted = {}

    def fit(n_threads):
        model = small(net=TinyF1, n_threads=n_threads).fit(X, Y)
        fitted[n_threads] = (model, torch.get_num_threads())

    threads = [threading.Thread(target=fit, args=(n,)) for n in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n_threads, (model, left) in fitted.items():
        assert (model.n_threads_, left) == (wanted[n_threads], 2)
        assert same_weights(model, small(net=TinyF1, n_threads=n_threads).fit(X, Y))
    assert torch.get_num_threads() == 2


def test_a_pickled_model_predicts_as_before():
    model = small(net=TinyF1).fit(X, Y)
    loaded = pickle.loads(pickle.dumps(model))
    assert (loaded.n_threads, loaded.n_threads_) == ("auto", 1)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


# -- saved work --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "same", "other"), [
    (("auto", 2), [(1, 2), (None, 1), ("auto", 4), (1, 1)], [(2, 2), (3, 1)]),
    ((2, 1), [(None, 2), (2, 3)], [("auto", 2), (3, 2)]),
    ((None, 3), [(3, 1), (3, 3)], [("auto", 3), (2, 3)]),
])  # fmt: skip
def test_the_key_holds_the_number_that_was_chosen(first, same, other, tmp_path):
    def trained(case):
        n_threads, torchs = case
        before = len(saved_work(tmp_path))
        torch.set_num_threads(torchs)
        small(net=Mlp, n_threads=n_threads, memory=tmp_path).fit(X, Y)
        return len(saved_work(tmp_path)) == before + 1

    assert trained(first)
    assert [case for case in same if trained(case)] == []
    assert [case for case in other if not trained(case)] == []
