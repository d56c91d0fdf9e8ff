import copy

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetClassifier
from skorch.callbacks import Callback, GradientNormClipping
from skorch.hf import AccelerateMixin
from torch import nn

from sklgap import LBGapClassifier
from sklgap.monitor import BatchSizeMonitor
from sklgap.monitor.skorch import BatchSizeCallback
from tests.tiny import Mlp, blobs, small

CE = nn.CrossEntropyLoss


class Moody(nn.Module):
    """Has batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))

    def forward(self, X):
        return self.layers(X)


def data(n=70):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 5)).astype(np.float32), rng.integers(0, 3, n)


def fitted(callbacks=(), kind=NeuralNet, **kwargs):
    torch.manual_seed(0)
    given = {"criterion": CE, "optimizer": torch.optim.Adam, "batch_size": 32, "max_epochs": 3, "verbose": 0, **kwargs}
    net = kind(Moody, train_split=None, callbacks=list(callbacks), **given)
    return net.fit(*data())


@pytest.mark.parametrize("geometry", ["euclidean", "adam"])
def test_training_is_bit_for_bit_the_same(geometry):
    callback = BatchSizeCallback(every=1, parts=4, geometry=geometry, verbose=False)
    net, plain = fitted([callback]), fitted()
    for name, tensor in plain.module_.state_dict().items():
        assert torch.equal(net.module_.state_dict()[name], tensor), name
    assert callback.monitor.n_measurements == (6 if geometry == "euclidean" else 5)
    assert callback.monitor.n_skipped == (3 if geometry == "euclidean" else 4)  # the last six rows of every epoch
    assert net.history[:, "train_loss"] == plain.history[:, "train_loss"]


class Beside(Callback):
    """Measures what the plain monitor does, at the same weights."""

    def on_train_begin(self, net, X=None, y=None):
        self.monitor = BatchSizeMonitor(net.module_, CE(), every=1, parts=4)

    def on_grad_computed(self, net, named_parameters, batch=None, training=False):
        if len(batch[1]) >= 8:
            self.monitor.step(tuple(batch[:2]))


def test_it_measures_what_the_monitor_measures():
    callback, beside = BatchSizeCallback(every=1, parts=4, verbose=False), Beside()
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Linear(5, 3), criterion=CE, batch_size=32, max_epochs=3, train_split=None, verbose=0,
        callbacks=[callback, beside],
    )  # fmt: skip
    net.fit(*data())
    for name in ("noise_scale", "trace", "squared_gradient_norm", "batch_size", "n_measurements"):
        assert callback.monitor.state()[name] == pytest.approx(beside.monitor.state()[name], rel=1e-12)


def test_history_and_verdict(capsys):
    net = fitted([BatchSizeCallback(every=1, parts=4, parameters={"last": "layers.4.*"})], max_epochs=5)
    assert net.history[-1, "noise_scale"] > 0
    assert net.history[-1, "noise_scale_low/last"] <= net.history[-1, "noise_scale/last"]
    assert "This is about speed, not about accuracy." in capsys.readouterr().out
    fitted([BatchSizeCallback(every=1, parts=4, verbose=False)])
    assert capsys.readouterr().out == ""


def test_parts_count_by_the_weights_of_their_classes():
    weight = torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64)
    torch.manual_seed(0)
    module = nn.Linear(5, 3, dtype=torch.float64)
    X, y = data(64)
    X = X.astype(np.float64)
    callback = BatchSizeCallback(every=1, parts=4, verbose=False)
    NeuralNet(
        copy.deepcopy(module), criterion=CE, criterion__weight=weight, batch_size=64, max_epochs=1, train_split=None,
        verbose=0, lr=0.1, callbacks=[callback],
    ).fit(X, y)  # fmt: skip
    gradients, masses = [], []
    for rows in torch.arange(64).split(16):
        loss = CE(weight)(module(torch.from_numpy(X)[rows]), torch.from_numpy(y)[rows])
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))]))
        masses.append(weight[torch.from_numpy(y)[rows]].sum())
    each, mass = torch.stack(gradients), torch.stack(masses)
    mean = (each * mass[:, None]).sum(0) / mass.sum()
    trace = (mass * (each - mean).square().sum(1)).sum() / 3 * 64 / mass.sum()  # of a single sample
    assert callback.monitor.state()["trace"] == pytest.approx(float(trace), rel=1e-9)


def classified(**options):
    """Return the monitor of an `LBGapClassifier` with class weights, and the noise scale in its history."""
    X, y = blobs()
    callback = ("monitor", BatchSizeCallback(every=1, parts=4, verbose=False))
    model = small(net=Mlp, batch_size=20, max_epochs=3, callbacks=[callback], **options).fit(X, y)
    return dict(model.net_.callbacks_)["monitor"].monitor, model.history_[-1, "noise_scale"]


def of_skorch(**options):
    callback = BatchSizeCallback(every=1, parts=4, verbose=False)
    net = fitted([callback], max_epochs=5, **options)
    return callback.monitor, net.history[-1, "noise_scale"]


WEIGHTS = torch.tensor([1.0, 5.0, 0.2])
WAYS = {
    "class_weight": lambda w: classified(class_weight=dict(enumerate(w.tolist()))),
    "criterion of the classifier": lambda w: classified(criterion__weight=w),
    "criterion of skorch": lambda w: of_skorch(criterion__weight=w),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("scale", [0.01, 10.0])
def test_the_scale_of_class_weights_does_not_matter(way, scale):
    (first, recorded), (second, scaled) = way(WEIGHTS), way(WEIGHTS * scale)
    assert scaled == pytest.approx(recorded, rel=1e-3)
    assert first.counts_samples
    assert second.counts_samples
    assert first.verdict().split(",")[0] == second.verdict().split(",")[0]
    assert f"At a batch size of {first.batch_size}" in first.verdict()


def test_equal_class_weights_are_no_weights():
    plain, equal = (classified(**options)[1] for options in ({}, {"class_weight": dict.fromkeys(range(3), 10.0)}))
    assert equal == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("y", [[0, 1, 2], [0, 1, -100]], ids=["weights", "ignored targets"])
def test_weights_are_those_of_the_monitor(y):
    """The noise scale and the batch size are those of `BatchSizeMonitor` with the same criterion."""
    X = data(64)[0]
    y = np.array(y)[np.arange(64) % 3]
    torch.manual_seed(0)
    module = nn.Linear(5, 3)
    callback = BatchSizeCallback(every=1, parts=4, verbose=False)
    NeuralNet(
        copy.deepcopy(module), criterion=CE, criterion__weight=WEIGHTS, batch_size=64, max_epochs=1, train_split=None,
        verbose=0, callbacks=[callback],
    ).fit(X, y)  # fmt: skip
    monitor = BatchSizeMonitor(module, CE(WEIGHTS), every=1, parts=4)
    monitor.step((torch.from_numpy(X), torch.from_numpy(y)))
    for name, value in monitor.state().items():
        assert callback.monitor.state()[name] == pytest.approx(value, rel=1e-5, nan_ok=True), name
    assert callback.monitor.counts_samples


# -- several gradients of a batch, or several batches of an update ----------------------------------------------------


class Counting(Callback):
    """Counts gradients and batches."""

    def on_train_begin(self, net, X=None, y=None):
        self.n_gradients = self.n_batches = 0

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.n_gradients += 1

    def on_batch_end(self, net, training=False, **kwargs):
        self.n_batches += training


def several_updates(way):
    """Fit with several gradients of a batch; return the callback, and what was counted."""
    X, y = blobs()
    callbacks = [("monitor", BatchSizeCallback(every=1, parts=4, verbose=False)), ("count", Counting())]
    if way == "skorch":
        net = NeuralNet(
            Mlp, criterion=CE, optimizer=torch.optim.LBFGS, optimizer__max_iter=4, batch_size=20, max_epochs=2,
            lr=0.5, train_split=None, verbose=0, callbacks=callbacks,
        ).fit(X, y.astype(np.int64))  # fmt: skip
    elif way == "classifier":
        kwargs = {"optimizer": torch.optim.LBFGS, "optimizer__max_iter": 4, "lr": 0.5}
        net = small(net=Mlp, batch_size=20, max_epochs=2, callbacks=callbacks, **kwargs).fit(X, y).net_
    else:
        net = small(net=Mlp, batch_size=20, max_epochs=2, callbacks=callbacks, proximal_lambda=0.1).fit(X, y).net_
    found = dict(net.callbacks_)
    return found["monitor"], found["count"]


@pytest.mark.parametrize("way", ["skorch", "classifier", "proximal"])
def test_only_the_first_gradient_of_a_batch_is_measured(way):
    callback, count = several_updates(way)
    assert count.n_gradients > count.n_batches == 6
    assert callback.monitor.n_measurements == 6


@pytest.mark.parametrize("micro_batch_size", [None, 5, 7])
def test_micro_batches_of_the_classifier_are_one_update(micro_batch_size):
    monitor, _ = classified(micro_batch_size=micro_batch_size)
    assert (monitor.n_measurements, monitor.batch_size) == (9, 20)


def test_the_first_gradient_is_that_of_the_unmoved_weights():
    """On a single batch, the measurement is that of the initial weights."""
    X, y = data(64)
    torch.manual_seed(0)
    module = nn.Linear(5, 3)
    callback = BatchSizeCallback(every=1, parts=4, verbose=False)
    NeuralNet(
        copy.deepcopy(module), criterion=CE, optimizer=torch.optim.LBFGS, batch_size=64, max_epochs=1,
        train_split=None, verbose=0, callbacks=[callback],
    ).fit(X, y)  # fmt: skip
    monitor = BatchSizeMonitor(module, CE(), every=1, parts=4)
    monitor.step((torch.from_numpy(X), torch.from_numpy(y)))
    assert callback.monitor.state()["noise_scale"] == pytest.approx(monitor.state()["noise_scale"], rel=1e-5)


class Accumulating(NeuralNetClassifier):
    """The net of skorch's FAQ, which updates after every second batch."""

    n_accumulated = 2
    notifies = "at updates"

    def get_loss(self, *args, **kwargs):
        return super().get_loss(*args, **kwargs) / self.n_accumulated

    def train_step(self, batch, **fit_params):
        n_batches = len(self.history[-1, "batches"])
        step = self.train_step_single(batch, **fit_params)
        ends = n_batches % self.n_accumulated == 0
        if self.notifies == "at batches" or (self.notifies == "at updates" and ends):
            self.notify("on_grad_computed", named_parameters=self.module_.named_parameters(), batch=batch)
        if ends:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


class NotifyingNever(Accumulating):
    notifies = "never"


class NotifyingAlways(Accumulating):
    notifies = "at batches"


class Accelerated(AccelerateMixin, NeuralNetClassifier):
    """Accumulates as Hugging Face's accelerate does."""


REFUSED = {
    "at updates": (Accumulating, "net must notify on_grad_computed for every batch for BatchSizeCallback"),
    "never": (NotifyingNever, "net must notify on_grad_computed for every batch for BatchSizeCallback"),
    "at batches": (NotifyingAlways, "net must clear the gradient before every batch for BatchSizeCallback"),
}


@pytest.mark.parametrize(("kind", "sentence"), REFUSED.values(), ids=REFUSED)
def test_accumulation_over_batches_is_refused(kind, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}.* train_step of {kind.__name__} .*BatchSizeMonitor"):
        fitted([BatchSizeCallback(every=1, parts=4)], kind=kind)


def test_accumulation_of_accelerate_is_refused():
    accelerate = pytest.importorskip("accelerate")
    options = {"kind": Accelerated, "accelerator": accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)}
    with pytest.raises(ValueError, match=r"^net must clear the gradient before every batch for BatchSizeCallback"):
        fitted([BatchSizeCallback(every=1, parts=4)], **options)


class KeepingGradients(NeuralNetClassifier):
    """Clears gradients by zeros."""

    def _zero_grad_optimizer(self, set_to_none=None):
        super()._zero_grad_optimizer(set_to_none=False)


@pytest.mark.parametrize("callbacks", [[], [GradientNormClipping(0.01)]], ids=["plain", "clipped"])
@pytest.mark.parametrize("kind", [NeuralNetClassifier, KeepingGradients])
def test_gradients_that_are_cleared_are_measured(kind, callbacks):
    callback = BatchSizeCallback(every=1, parts=4, verbose=False)
    fitted([*callbacks, callback], kind=kind)
    assert (callback.monitor.n_measurements, callback.monitor.n_skipped) == (6, 3)


@pytest.mark.parametrize("options", [{}, {"class_weight": "balanced"}, {"proximal_lambda": 0.1}])
def test_in_the_classifier(options):
    X, y = blobs()
    kwargs = {"net": Mlp, "batch_size": 20, "max_epochs": 3, **options}
    callback = BatchSizeCallback(every=1, parts=4, verbose=False)
    model = small(**kwargs, callbacks=[callback]).fit(X, y)
    plain = small(**kwargs).fit(X, y)
    for name, tensor in plain.module_.state_dict().items():
        assert torch.equal(model.module_.state_dict()[name], tensor), name
    assert isinstance(model, LBGapClassifier)
    assert model.history_[-1, "noise_scale"] > 0


def test_refused():
    with pytest.raises(ValueError, match=r"^criterion must have reduction='mean' for BatchSizeCallback; got 'sum'"):
        fitted([BatchSizeCallback()], criterion__reduction="sum")
    with pytest.raises(ValueError, match=r"^batch must have at least 2 samples .* parts=17; got 32"):
        fitted([BatchSizeCallback(every=1, parts=17)])
    with pytest.raises(ValueError, match=r"^geometry must be"):
        fitted([BatchSizeCallback(geometry="l2")])
    X, y = blobs()
    with pytest.raises(ValueError, match=r"^sample_weight must be None for BatchSizeCallback"):
        small(net=Mlp, callbacks=[BatchSizeCallback(every=1)]).fit(X, y, np.ones(len(X)) * np.arange(len(X)))
