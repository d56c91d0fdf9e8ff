"""A fit that was killed goes on to the same weights, bit for bit; a finished one is loaded."""

import contextlib
import os
import signal
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, GradientNormClipping, LRScheduler, ProgressBar
from skorch.dataset import ValidSplit
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from sklgap import (
    SAM,
    Adversarial,
    DynamicSampling,
    EntropySGD,
    ExponentialAveraging,
    GradientPenalty,
    GrowingBatch,
    LabelSmoothing,
    LatestAveraging,
    LBGapClassifier,
    Mixup,
    SampleNoise,
    SwitchBatch,
    TrainingRecorder,
    WeightAveraging,
    full_batch_recipe,
    gap_report,
)
from sklgap.memory import Memory
from sklgap.training import _checkpoint
from tests.tiny import Mlp, blobs

X, Y = blobs()
EPOCHS = 4


class Killed(BaseException):
    """What nothing catches."""


# How the coming fits die, and how many batches they have made. Not in globals or the callback, which are in the key.
DEATHS, SEEN = "SKLGAP_TESTS_DEATHS", "SKLGAP_TESTS_SEEN"


def kill_after(*counts, error=Killed):
    """Let the coming fits die at this batch, counted from now on and anew after every death."""
    os.environ[SEEN] = "0"
    os.environ[DEATHS] = " ".join(f"{count}:{error.__name__}" for count in counts)


def seen():
    return int(os.environ[SEEN])


class Kill(Callback):
    """Dies where it is told to."""

    def on_batch_begin(self, net, training=False, **kwargs):
        os.environ[SEEN] = str(int(os.environ[SEEN]) + training)
        deaths = os.environ[DEATHS].split()
        if deaths and os.environ[SEEN] == deaths[0].split(":")[0]:
            os.environ.update({SEEN: "0", DEATHS: " ".join(deaths[1:])})
            raise {"Killed": Killed, "KeyboardInterrupt": KeyboardInterrupt}[deaths[0].split(":")[1]]


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))

    def forward(self, X):
        return self.layers(X)


def estimator(memory=None, **parameters):
    parameters = {"net": Dropping, "batch_size": 10, "tol": None, "random_state": 3, "max_epochs": EPOCHS, **parameters}
    parameters["callbacks"] = [*parameters.get("callbacks", ()), ("kill", Kill())]
    return LBGapClassifier(memory=memory, device="cpu", **parameters)


def everything(model):
    """Return weights, buffers, optimiser and history, the clock aside."""
    net = model.net_
    rows = [{k: v for k, v in row.items() if k not in ("dur", "batches")} for row in net.history]
    tensors = {**dict(net.module_.named_parameters()), **dict(net.module_.named_buffers())}
    return {n: t.detach().clone() for n, t in tensors.items()}, net.optimizer_.state_dict()["state"], rows


def assert_same(model, other):
    tensors, state, rows = everything(model)
    expected_tensors, expected_state, expected_rows = everything(other)
    assert rows == expected_rows
    for name, tensor in expected_tensors.items():
        assert torch.equal(tensors[name], tensor), name
    torch.testing.assert_close(state, expected_state, rtol=0, atol=0)
    assert (model.train_score_, model.n_updates_, model.n_iter_) == (
        other.train_score_,
        other.n_updates_,
        other.n_iter_,
    )
    assert model.train_loss_ == other.train_loss_
    assert model.converged_ == other.converged_


@cache
def undisturbed():
    """Return the plain fit, for tests that only compare with it."""
    return estimator().fit(X, Y)


CASES = {
    "plain": {},
    "sgd": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
    "lbfgs": {"optimizer": torch.optim.LBFGS, "optimizer__max_iter": 4, "lr": 0.1},
    "switch": {"batch_regime": SwitchBatch(3, first=10, then=30), "batch_size": None, "max_epochs": 6},
    "growing": {"batch_regime": GrowingBatch(initial=8, every=2, largest=40), "batch_size": None, "max_epochs": 6},
    "dynamic": {"batch_regime": DynamicSampling(initial=8, largest=40), "batch_size": None},
    "adaptation": {"regime_adaptation": True, "base_batch_size": 10, "batch_size": 20, "lr_scaling": "sqrt"},
    "schedule": {"lr_warmup_epochs": 2, "lr_milestones": [3], "lr_scaling": "linear", "base_batch_size": 5},
    "remedies": {"remedies": [Adversarial(), SAM(), SampleNoise(0.3)], "proximal_lambda": 0.1},
    "entropy": {"remedies": [EntropySGD(n_steps=3)]},
    "ghost": {"ghost_batch_size": 5, "micro_batch_size": None},
    "averaging": {"callbacks": [("average", WeightAveraging(start=0.3))]},
    "averaging from an epoch": {"callbacks": [("average", WeightAveraging(start=2, every=2))]},
    "averaging of all updates": {"callbacks": [("average", ExponentialAveraging(0.8, every=2))]},
    "averaging of the last": {"callbacks": [("average", LatestAveraging(3))]},
    "sam, rarely": {"remedies": [SAM(every=4)], "batch_size": 9},
    "penalty": {"remedies": [GradientPenalty(0.1, 5), Mixup(), LabelSmoothing()]},
    "full batch": full_batch_recipe(6, sub_batch_size=16),
    "recorder": {"callbacks": [("recorder", TrainingRecorder({"train": (X, Y)}, at_updates=[0, 3, 9, 20]))]},
    "steps": {"callbacks": [("lr", LRScheduler("StepLR", step_size=2, gamma=0.5))]},
    "cycle": {"callbacks": [("lr", LRScheduler(OneCycleLR, step_every="batch", max_lr=0.1, total_steps=100))]},
    "plateau": {"callbacks": [("lr", LRScheduler("ReduceLROnPlateau", patience=0, threshold=0.9))]},
    "clipping": {"callbacks": [("clip", GradientNormClipping(0.1))]},
    "early stopping": {
        "train_split": ValidSplit(4),
        "callbacks": [("stop", EarlyStopping(patience=2, load_best=True)), ("f1", EpochScoring("f1_macro"))],
    },
    "stopping rule": {"tol": 0.02, "n_iter_no_change": 2, "max_epochs": 30, "lr": 0.1},
    "random split": {"train_split": ValidSplit(0.25)},
    "bar": {"callbacks": [("bar", ProgressBar())]},
    "own iterator": {"iterator_train__shuffle": True, "iterator_train__drop_last": True},
}


@pytest.fixture(autouse=True)
def _every_epoch_is_saved(monkeypatch):
    monkeypatch.setattr(_checkpoint, "SHARE", 1e9)
    kill_after()


@pytest.fixture(autouse=True)
def _not_about_convergence():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The training loss was still falling")
        yield


@pytest.mark.parametrize("case", CASES)
def test_a_killed_fit_goes_on_to_the_same_weights(case, tmp_path):
    parameters = CASES[case]
    uninterrupted = estimator(**parameters).fit(X, Y)
    n_batches = sum(uninterrupted.history_[:, "train_batch_count"])
    kill_after(n_batches // 3, n_batches // 3)
    for _ in range(2):
        with pytest.raises(Killed):
            estimator(tmp_path, **parameters).fit(X, Y)
    assert len(list(tmp_path.glob("*.part"))) == 1
    kill_after()
    model = estimator(tmp_path, **parameters).fit(X, Y)
    assert_same(model, uninterrupted)
    assert [path.suffix for path in tmp_path.glob("*.*")] == [".fit"]
    # It has made fewer batches than a whole training: it did go on.
    assert 0 < seen() < n_batches
    kill_after(1)  # the finished fit is loaded: training again would die in its first batch
    loaded = estimator(tmp_path, **parameters).fit(X, Y)
    assert_same(loaded, uninterrupted)
    np.testing.assert_array_equal(loaded.predict_proba(X), uninterrupted.predict_proba(X))


def test_what_decides_a_fit_is_in_its_key(tmp_path):
    cases = [
        {},
        {"random_state": 4},
        {"lr": 0.002},
        {"max_epochs": 2},
        {"batch_size": 11},
        {"remedies": [SAM()]},
        {"remedies": [SAM(rho=0.06)]},
        {"callbacks": [("average", WeightAveraging())]},
        {"net": Mlp},
        {"net": Mlp, "module__width": 9},
        {"net": Mlp()},
        {"optimizer__weight_decay": 0.1},
        {"init": "torch"},
    ]
    for parameters in cases:
        estimator(tmp_path, **{"max_epochs": 1, **parameters}).fit(X, Y)
    estimator(tmp_path, max_epochs=1).fit(X[:-1], Y[:-1])
    estimator(tmp_path, max_epochs=1).fit(X + np.float32(1e-6), Y)
    estimator(tmp_path, max_epochs=1).fit(X, (Y + 1) % 3)
    assert len(list(tmp_path.glob("*.*"))) == len(cases) + 3
    estimator(tmp_path, max_epochs=1).fit(X, [f"class {label}" for label in Y])  # callbacks may know labels
    assert len(list(tmp_path.glob("*.*"))) == len(cases) + 4
    estimator(tmp_path, max_epochs=1, verbose=0).fit(X.astype(np.float64).tolist(), Y.tolist())  # the same rows
    assert len(list(tmp_path.glob("*.*"))) == len(cases) + 4


def test_a_random_state_object_is_known_by_what_it_draws(tmp_path):
    rng = np.random.RandomState(0)
    first = estimator(tmp_path, random_state=rng).fit(X, Y)
    second = estimator(tmp_path, random_state=rng).fit(X, Y)
    assert len(list(tmp_path.glob("*.*"))) == 2
    kill_after(1)
    again = estimator(tmp_path, random_state=np.random.RandomState(0)).fit(X, Y)
    assert_same(again, first)
    assert again.train_loss_ != second.train_loss_


def test_nothing_is_kept_without_a_random_state(tmp_path):
    with pytest.warns(UserWarning, match="memory saves nothing while random_state is None"):
        estimator(tmp_path, random_state=None).fit(X, Y)
    assert not list(tmp_path.glob("*.*"))


def test_a_search_keeps_its_candidates_apart(tmp_path):
    grid = {"lr": [1e-3, 1e-2], "batch_size": [6, 20]}
    plain = GridSearchCV(estimator(max_epochs=2), grid, cv=2).fit(X, Y)
    kill_after(30)
    with pytest.raises(Killed):
        GridSearchCV(estimator(tmp_path, max_epochs=2), grid, cv=2).fit(X, Y)
    assert 1 <= len(list(tmp_path.glob("*.fit"))) < 8
    resumed = GridSearchCV(estimator(tmp_path, max_epochs=2), grid, cv=2).fit(X, Y)
    np.testing.assert_array_equal(resumed.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])
    assert len(list(tmp_path.glob("*.fit"))) == 4 * 2 + 1
    kill_after(1)
    GridSearchCV(estimator(tmp_path, max_epochs=2), grid, cv=2).fit(X, Y)


def test_a_further_fit_of_a_warm_start_is_never_loaded(tmp_path):
    model = estimator(tmp_path, warm_start=True).fit(X, Y)
    loaded = estimator(tmp_path, warm_start=True).fit(X, Y)
    model.fit(X, Y)
    loaded.fit(X, Y)
    assert model.n_iter_ == loaded.n_iter_ == 2 * EPOCHS
    assert_same(loaded, model)
    assert len(list(tmp_path.glob("*.*"))) == 1


@pytest.mark.parametrize("kind", ["fit", "part"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content[: len(content) // 2], "is damaged"),
        (lambda content: content[:-9] + b"x" + content[-8:], "is damaged"),
        (lambda content: b"", "is not a file that sklgap wrote"),
        (lambda content: b"\x80\x04." + content, "is not a file that sklgap wrote"),
    ],
)
def test_a_damaged_file_is_refused_and_the_fit_made_again(kind, damage, says, tmp_path):
    expected = undisturbed()
    if kind == "part":
        kill_after(20)
        with pytest.raises(Killed):
            estimator(tmp_path).fit(X, Y)
    else:
        estimator(tmp_path).fit(X, Y)
    (path,) = tmp_path.glob(f"*.{kind}")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=f"memory: {path} {says}; the work is done again"):
        model = estimator(tmp_path).fit(X, Y)
    assert_same(model, expected)
    assert_same(estimator(tmp_path).fit(X, Y), expected)


@pytest.mark.parametrize("kind", ["fit", "part"])
def test_a_file_of_other_work_is_refused(kind, tmp_path):
    if kind == "part":
        kill_after(20, 20)
        for width in (8, 9):
            with pytest.raises(Killed):
                estimator(tmp_path, net=Mlp, module__width=width).fit(X, Y)
    else:
        for width in (8, 9):
            estimator(tmp_path, net=Mlp, module__width=width).fit(X, Y)
    one, other = tmp_path.glob(f"*.{kind}")
    one.write_bytes(other.read_bytes())
    kill_after()
    told = []
    for width in (8, 9):
        expected = estimator(net=Mlp, module__width=width).fit(X, Y)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert_same(estimator(tmp_path, net=Mlp, module__width=width).fit(X, Y), expected)
        told += [str(w.message) for w in caught if "memory" in str(w.message)]
    assert told == [f"memory: {one} belongs to other work; the work is done again."]


def test_the_interrupted_fit_of_ctrl_c_goes_on(tmp_path):
    expected = undisturbed()
    kill_after(20, error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        estimator(tmp_path).fit(X, Y)
    assert_same(estimator(tmp_path).fit(X, Y), expected)


@pytest.mark.parametrize("memory", [3, "", object()])
def test_bad_memory(memory):
    with pytest.raises(ValueError, match="memory must be None or the path of a folder; got"):
        estimator(memory).fit(X, Y)


def test_memory_that_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(ValueError, match="memory must be None or the path of a folder"):
        estimator(path).fit(X, Y)
    assert path.read_text() == "mine"


def test_memory_and_data_parallel(tmp_path):
    with pytest.raises(ValueError, match="data_parallel"):
        estimator(tmp_path, data_parallel=True).fit(X, Y)


class Interrupting(Callback):
    """Ctrl-C while a callback works at the end of an epoch."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 3 and os.environ[DEATHS]:
            os.environ[DEATHS] = ""
            signal.raise_signal(signal.SIGINT)
            sum(range(1000))  # the interpreter looks for signals here


@pytest.fixture
def _listening():
    """Ctrl-C is heard, also where pytest was started in the background and would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_listening")
def test_ctrl_c_at_the_end_of_an_epoch_is_not_early_stopping(tmp_path):
    callbacks = {"callbacks": [("interrupting", Interrupting())]}
    expected = estimator(**callbacks).fit(X, Y)
    kill_after(10**9)
    with pytest.raises(KeyboardInterrupt):
        estimator(tmp_path, **callbacks).fit(X, Y)
    assert not list(tmp_path.glob("*.fit"))
    assert_same(estimator(tmp_path, **callbacks).fit(X, Y), expected)


@pytest.mark.parametrize("kind", ["fit", "part"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state["nodes"].pop(),
        lambda state: state["nodes"][0].update(type="builtins.list"),
        lambda state: state["roots"].pop("net"),
        lambda state: [node.update(data=torch.zeros(2, 2, 2)) for node in state["nodes"] if node["kind"] == "Tensor"],
        lambda state: state.clear(),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_the_fit_made_again(spoil, kind, tmp_path):
    """The checksum is right, the content is not; half of it may have been put in place before that shows."""
    parameters = {"net": seeded_dropping(), "callbacks": [("average", WeightAveraging(start=2))]}
    expected = estimator(**parameters).fit(X, Y)
    kill_after(*([20] if kind == "part" else []))
    with contextlib.suppress(Killed):
        estimator(tmp_path, **parameters).fit(X, Y)
    kill_after()
    (path,) = tmp_path.glob("*.*")
    key = path.name.partition(".")[0]
    entry = Memory(tmp_path).read(key, kind)
    spoil(entry["state"])
    Memory(tmp_path).write(key, kind, entry)
    with pytest.warns(UserWarning, match="does not hold the state of this net.*the work is done again"):
        model = estimator(tmp_path, **parameters).fit(X, Y)
    assert_same(model, expected)
    assert seen() == sum(expected.history_[:, "train_batch_count"])


def seeded_dropping():
    torch.manual_seed(0)
    return Dropping()


def test_a_loaded_search_tells_its_batch_sizes(tmp_path):
    search = GridSearchCV(estimator(tmp_path, max_epochs=1), {"batch_size": [10, 0.5]}, cv=2, return_train_score=True)
    first, again = (gap_report(search.fit(X, Y)) for _ in range(2))
    assert [r["regime_gap"] for r in again.records] == [r["regime_gap"] for r in first.records]
