import copy

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetClassifier
from skorch.callbacks import Callback
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
    trace = (mass * (each - mean).square().sum(1)).sum() / 3
    assert callback.monitor.state()["trace"] == pytest.approx(float(trace), rel=1e-9)


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
        fitted([BatchSizeCallback(geometry="l1")])
    X, y = blobs()
    with pytest.raises(ValueError, match=r"^sample_weight must be None for BatchSizeCallback"):
        small(net=Mlp, callbacks=[BatchSizeCallback(every=1)]).fit(X, y, np.ones(len(X)) * np.arange(len(X)))
