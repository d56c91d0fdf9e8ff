"""In which arithmetic a net is trained: against a plain loop, what stays in float32, and settings that come back."""

import pickle
import threading
from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from torch import nn

from sklgap import DynamicSampling, LBGapClassifier, check_objective, compare_regimes, sharpness
from sklgap.objective import Objective
from sklgap.training import TrainStep
from sklgap.training._precision import arithmetic, check_training_precision, lowered
from tests.tiny import Mlp, TinyC1, blobs, images, same_weights, small, weights

X, Y = blobs(60)
BFLOAT16 = {"precision": "bfloat16"}


class Batches(Callback):
    """Remembers the batches trained on."""

    def initialize(self):
        self.seen_ = []
        return self

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if training:
            self.seen_.append(tuple(tensor.clone() for tensor in batch))


class Watch(Mlp):
    """Notes for every evaluation whether it is one of training, and how torch is set."""

    seen: list = []  # noqa: RUF012 - of all copies

    def forward(self, X):
        found = super().forward(X)
        tf32 = torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
        Watch.seen.append((self.training, torch.is_autocast_enabled("cpu"), tf32, found.dtype))
        return found


class Raises(Mlp):
    """Raises in the first forward pass of training."""

    error: BaseException = KeyboardInterrupt()

    def forward(self, X):
        if self.training:
            raise self.error
        return super().forward(X)


@pytest.fixture(autouse=True)
def _nothing_seen():
    Watch.seen.clear()


def with_batch_norm():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def convolutional():
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 2)]
    return nn.Sequential(*layers)


def built(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build()


# -- bfloat16 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize(
    ("build", "data"),
    [(Mlp, (X, Y)), (with_batch_norm, (X, Y)), (convolutional, images(40, channels=2))],
    ids=["dense", "batch norm", "convolution"],
)
def test_it_is_a_plain_loop_under_autocast(build, data, optimizer):
    module = built(build)
    model = small(net=module, optimizer=optimizer, lr=0.05, batch_size=16, callbacks=[Batches()], **BFLOAT16)
    model.set_params(recompute_batch_norm=False, max_epochs=3).fit(*data)

    own = deepcopy(module).train()
    order = torch.channels_last if build is convolutional else torch.contiguous_format  # sums in the same order
    steps = optimizer(own.parameters(), lr=0.05, fused=True)
    losses = []
    for rows, labels in model.net_.callbacks_[-1][1].seen_:
        steps.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = own(rows.contiguous(memory_format=order))
        loss = nn.functional.cross_entropy(outputs.float(), labels)
        loss.backward()
        steps.step()
        losses.append((loss.item(), len(rows)))

    assert len(losses) >= 9
    for name, value in weights(model).items():
        assert torch.equal(value, own.state_dict()[name]), name
    last = losses[-len(losses) // 3 :]
    assert model.train_loss_ == pytest.approx(np.average([a for a, _ in last], weights=[n for _, n in last]), rel=1e-6)


@pytest.mark.parametrize("build", [Mlp, with_batch_norm])
def test_it_rounds_but_learns_the_same(build):
    module = built(build)
    plain, lower = (small(net=module, max_epochs=8, precision=p).fit(X, Y) for p in ("float32", "bfloat16"))
    assert not same_weights(plain, lower)
    # Eight bits are a relative error of 0.4 % in every product.
    assert lower.train_loss_ == pytest.approx(plain.train_loss_, rel=0.03)


def test_what_stays_in_float32():
    model = small(net=Watch, train_split=ValidSplit(5), **BFLOAT16).fit(X, Y)
    model.predict_proba(X)
    trained = {seen for seen in Watch.seen if seen[0]}
    others = {seen[1:] for seen in Watch.seen if not seen[0]}
    assert trained == {(True, True, False, torch.bfloat16)}
    assert others <= {(False, False, torch.float32), (False, False, torch.float64)}
    assert others
    assert {value.dtype for value in weights(model).values()} == {torch.float32}
    states = [value for state in model.net_.optimizer_.state.values() for value in state.values()]
    assert {value.dtype for value in states} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


def test_measurements_are_in_float32():
    model = small(net=Mlp, **BFLOAT16).fit(X, Y)
    data = torch.from_numpy(X), torch.from_numpy(Y)
    own = Objective(model.module_, nn.CrossEntropyLoss(), data)
    assert check_objective(model, X, Y).value() == own.value()
    assert sharpness(model, X, Y, random_state=0).value == sharpness(own, random_state=0).value
    with torch.no_grad():
        expected = (model.module_(data[0]).argmax(dim=1) == data[1]).float().mean().item()
    assert model.train_score_ == pytest.approx(expected)


@pytest.mark.parametrize(
    "params",
    [
        {"remedies": ["adversarial"]},
        {"remedies": ["sam"]},
        {"remedies": ["asam"]},
        {"remedies": ["entropysgd"]},
        {"remedies": ["samplenoise"]},
        {"remedies": ["stability"]},
        {"proximal_lambda": 0.1},
        {"micro_batch_size": 7},
        {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}},
        {"batch_regime": DynamicSampling(10, theta=0.5)},
        {"optimizer": torch.optim.LBFGS, "batch_size": -1, "lr": 0.1, "max_epochs": 1},
    ],
    ids=lambda params: " ".join(map(str, params.values()))[:30],
)
def test_with_everything_that_changes_the_step(params):
    common = {"net": Mlp, "max_epochs": 4, "batch_size": None if "batch_regime" in params else 20, **params}
    plain, lower = (small(**common, precision=p).fit(X, Y) for p in ("float32", "bfloat16"))
    assert not same_weights(plain, lower)
    assert lower.train_loss_ == pytest.approx(plain.train_loss_, rel=0.05)


@pytest.mark.parametrize(
    ("net", "params"),
    [
        (TinyC1, {}),
        (TinyC1, {"augmentation": "crop-flip"}),
        (TinyC1, {"ghost_batch_size": 5}),
        ("C2", {"module__stacks": ((2, 2), (3,)), "module__hidden": 4}),
        ("ResNet44", {"module__n_blocks": 1, "module__widths": (2, 3)}),
        ("WRN16-4", {"module__n_blocks": 1, "module__widths": (2, 3), "module__widening": 2}),
    ],
)
@pytest.mark.filterwarnings("ignore:augmentation mirrors")
def test_nets_of_the_papers(net, params):
    data = images(40, channels=2)
    plain, lower = (small(net=net, batch_size=10, **params, precision=p).fit(*data) for p in ("float32", "bfloat16"))
    assert not same_weights(plain, lower)
    assert lower.train_loss_ == pytest.approx(plain.train_loss_, rel=0.1)


def test_it_repeats_bit_for_bit():
    assert same_weights(*(small(**BFLOAT16).fit(X, Y) for _ in range(2)))


# -- float32 and the parameter -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_nothing_is_put_around_the_forward_pass_otherwise(precision):
    def infer(module, X):
        return module(X)

    assert lowered(infer, precision, "cpu") is infer


def test_float32_is_the_default_and_leaves_double_precision_alone():
    assert LBGapClassifier().precision == "float32"
    single, double = Mlp(), Mlp().double()
    assert small(net=single).fit(X, Y).module_.layers[0].weight.dtype == torch.float32
    assert small(net=double, precision="float32").fit(X, Y).module_.layers[0].weight.dtype == torch.float64


def test_a_warm_start_may_change_it():
    model = small(net=Watch, warm_start=True).fit(X, Y)
    Watch.seen.clear()
    model.set_params(**BFLOAT16).fit(X, Y)
    assert {autocast for training, autocast, *_ in Watch.seen if training} == {True}
    Watch.seen.clear()
    model.set_params(precision="float32").fit(X, Y)
    assert {autocast for training, autocast, *_ in Watch.seen if training} == {False}


def test_copies_and_pickles_train_on_in_it():
    model = small(net=Watch, warm_start=True, **BFLOAT16)
    assert clone(model).precision == "bfloat16"
    again = pickle.loads(pickle.dumps(model.fit(X, Y)))
    Watch.seen.clear()
    again.net_.partial_fit(X, Y)
    assert {autocast for training, autocast, *_ in Watch.seen if training} == {True}
    assert same_weights(again.fit(X, Y), deepcopy(again))


@pytest.mark.parametrize("other", ["float32", "bfloat16"])
def test_it_is_part_of_the_key(other, tmp_path, monkeypatch):
    counted = []
    step = TrainStep.__call__
    monkeypatch.setattr(TrainStep, "__call__", lambda *args: counted.append(1) or step(*args))
    first = small(memory=tmp_path, **BFLOAT16).fit(X, Y)
    trained = len(counted)
    second = small(memory=tmp_path, precision=other).fit(X, Y)
    assert len(counted) == trained * (1 if other == "bfloat16" else 2)
    assert same_weights(first, second) is (other == "bfloat16")


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_report_says_it(precision):
    model = small(net=Mlp, precision=precision)
    report = compare_regimes(model, X, Y, X, Y, n_trials=1, epsilon=[], random_state=0, verbose=0)
    line = "trained with precision='bfloat16' and measured in float32"
    assert (line in str(report)) is (precision == "bfloat16")
    assert report.settings["precision"] == precision


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float16", "bf16", None, 32, torch.bfloat16, ["tf32"]])
def test_other_values(precision):
    with pytest.raises(ValueError, match=r"precision must be one of 'float32', 'tf32', 'bfloat16'; got"):
        small(precision=precision).fit(X, Y)


@pytest.mark.parametrize("net", [Mlp, "F1"])
def test_tf32_on_a_cpu(net):
    with pytest.raises(ValueError, match=r"precision must be 'float32' or 'bfloat16' .*'tf32' for the device 'cpu'"):
        small(net=net, precision="tf32", device="cpu").fit(X, Y)


def test_tf32_on_a_device_that_is_too_old(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ValueError, match="without TensorFloat-32"):
        check_training_precision("tf32", "cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert check_training_precision("tf32", "cuda:0") == "tf32"


def test_tf32_in_a_thread_beside_the_main_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    raised = []

    def check():
        try:
            check_training_precision("tf32", "cuda")
        except ValueError as error:
            raised.append(str(error))

    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
    assert len(raised) == 1
    assert "use processes" in raised[0]


@pytest.mark.parametrize("device", ["mps", "meta"])
def test_bfloat16_on_other_devices(device):
    with pytest.raises(ValueError, match="precision must be 'float32' on a device without bfloat16"):
        check_training_precision("bfloat16", device)


def test_bfloat16_on_a_gpu_without_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match="without bfloat16; got 'bfloat16' for the device 'cuda'"):
        check_training_precision("bfloat16", "cuda")


def test_bfloat16_of_a_net_in_double_precision():
    with pytest.raises(ValueError, match=r"precision must be 'float32' for a net in float64.*pass net.float\(\)"):
        small(net=Mlp().double(), **BFLOAT16).fit(X, Y)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_fit_within_autocast(kind, precision):
    """Autocast saves weights in lower precision, and would train with these after they have changed."""
    with (
        torch.autocast(kind, dtype=torch.bfloat16) if kind == "cpu" else _autocast_flag("cuda"),
        pytest.raises(RuntimeError, match=r"torch\.autocast must be off .* use precision='bfloat16'\.$"),
    ):
        small(precision=precision).fit(X, Y)


def test_predictions_within_autocast_are_those_in_lower_precision():
    model = small().fit(X, Y)
    outside = model.predict_proba(X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_allclose(model.predict_proba(X), outside, atol=0.02)


class _autocast_flag:
    """Autocast for a device that is not there."""

    def __init__(self, kind):
        self.kind = kind

    def __enter__(self):
        torch.set_autocast_enabled(self.kind, True)

    def __exit__(self, *raised):
        torch.set_autocast_enabled(self.kind, False)


# -- tf32 --------------------------------------------------------------------------------------------------------------

MATMUL, CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn


def readable(read):
    try:
        return read()
    except RuntimeError:
        return "torch's older and newer settings differ"


def settings():
    return {
        "matmul": readable(lambda: MATMUL.allow_tf32),
        "cudnn": readable(lambda: CUDNN.allow_tf32),
        "whole": readable(torch.get_float32_matmul_precision),
        "newer": (MATMUL.fp32_precision, CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision),
        "cpu": torch.backends.mkldnn.matmul.fp32_precision,
    }


@pytest.fixture
def _torch_as_it_was():
    before = settings()
    yield
    torch.set_float32_matmul_precision(before["whole"])
    CUDNN.allow_tf32 = before["cudnn"]
    MATMUL.fp32_precision, CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision = before["newer"]
    torch.backends.mkldnn.matmul.fp32_precision = before["cpu"]
    assert settings() == before


SETTINGS = {
    "default": lambda: None,
    "older, convolutions off": lambda: setattr(CUDNN, "allow_tf32", False),
    "older, products on": lambda: setattr(MATMUL, "allow_tf32", True),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "newer, products off": lambda: setattr(MATMUL, "fp32_precision", "ieee"),
    "newer, products on": lambda: setattr(MATMUL, "fp32_precision", "tf32"),
    "newer, convolutions off": lambda: setattr(CUDNN.conv, "fp32_precision", "ieee"),
    "newer, all of cuDNN off": lambda: [setattr(part, "fp32_precision", "ieee") for part in (CUDNN.conv, CUDNN.rnn)],
}


@pytest.mark.usefixtures("_torch_as_it_was")
@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_torch_come_back(name, error):
    SETTINGS[name]()
    before = settings()
    try:
        with arithmetic("tf32"):
            assert settings()["newer"] == ("tf32",) * 3
            assert settings()["cpu"] == before["cpu"]
            if error:
                raise error
    except (ZeroDivisionError, KeyboardInterrupt):
        pass
    assert settings() == before


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_others_change_no_setting(precision):
    before = settings()
    with arithmetic(precision):
        assert settings() == before


@pytest.fixture
def _tf32_everywhere(monkeypatch):
    # A CPU does as it is told, and computes as before.
    monkeypatch.setattr("sklgap.estimator._parameters.check_training_precision", lambda precision, device: precision)


@pytest.mark.usefixtures("_tf32_everywhere")
def test_tf32_is_for_the_updates_alone():
    before = settings()
    model = small(net=Watch, train_split=ValidSplit(5), precision="tf32").fit(X, Y)
    model.predict(X)
    check_objective(model, X, Y).gradient()
    assert {tf32 for training, _, tf32, _ in Watch.seen if training} == {True}
    assert {tf32 for training, _, tf32, _ in Watch.seen if not training} == {False}
    assert settings() == before
    assert same_weights(model, small(net=Watch, train_split=ValidSplit(5)).fit(X, Y))


@pytest.mark.usefixtures("_tf32_everywhere")
def test_gradients_that_a_regime_measures_are_those_of_the_training():
    small(net=Watch, batch_regime=DynamicSampling(10, theta=0.5), precision="tf32").fit(X, Y)
    assert {tf32 for training, _, tf32, _ in Watch.seen if training} == {True}


@pytest.mark.usefixtures("_tf32_everywhere")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory"), SystemExit()])
def test_settings_come_back_after_a_fit_that_ends_early(error, monkeypatch):
    monkeypatch.setattr(Raises, "error", error)
    before = settings()
    with pytest.raises(type(error)):
        small(net=Raises, precision="tf32").fit(X, Y)
    assert settings() == before
