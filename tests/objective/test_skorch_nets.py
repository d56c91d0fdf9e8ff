"""Nets of skorch are measured by their own ``infer`` and ``get_loss``."""

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.scoring import loss_scoring
from torch import nn

from sklgap.inspection import gradient_noise_scale, hessian_eigenvalues, sharpness
from sklgap.objective import check_objective

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype("float32")
CLASSES = RNG.integers(3, size=60)
BINARY = (X[:, 0] > 0).astype("float32")
REAL = X[:, :1] * 2 + 1


def mlp(n_outputs, *last):
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, n_outputs), *last)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp(3)

    def forward(self, X, scale=1.0):
        return self.net(X) * scale


class Sums(Scaled):
    def forward(self, X):
        out = self.net(X)
        return out, out.sum()


class Scales(NeuralNetClassifier):
    """Gives its module another argument."""

    def infer(self, x, **fit_params):
        return super().infer(x, scale=2.0, **fit_params)


class Standardises(NeuralNetClassifier):
    def infer(self, x, **fit_params):
        x = (torch.as_tensor(x, device=self.device) - 0.5) * 3
        return super().infer(x.to(next(self.module_.parameters()).dtype), **fit_params)


class Squeezes(NeuralNetRegressor):
    def infer(self, x, **fit_params):
        return super().infer(x, **fit_params).squeeze(-1)


class TwoOutputs(NeuralNet):
    """A variational loss: of the outputs and of what the module returns beside them."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        loss = super().get_loss(y_pred[0], y_true, *args, **kwargs)
        return loss + 0.01 * y_pred[1].square() / 60


class Penalised(NeuralNet):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        loss = super().get_loss(y_pred, y_true, *args, **kwargs)
        return loss + 0.01 * sum(p.square().sum() for p in self.module_.parameters())


class Smoothed(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return nn.functional.cross_entropy(y_pred, torch.as_tensor(y_true), label_smoothing=0.2)


class Halved(NeuralNetClassifier):
    """Has an attribute that only its own loss knows the meaning of, under a name that ours use too."""

    class_weight = (0.5, 0.5, 0.5)

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred, y_true, *args, **kwargs) * self.class_weight[0]


CE = nn.CrossEntropyLoss
NETS = {
    "classifier": (NeuralNetClassifier, mlp(3), CE, CLASSES),
    "probabilities": (NeuralNetClassifier, mlp(3, nn.Softmax(1)), nn.NLLLoss, CLASSES),
    "binary, one output": (NeuralNetBinaryClassifier, mlp(1), nn.BCEWithLogitsLoss, BINARY),
    "binary, flat": (NeuralNetBinaryClassifier, mlp(1, nn.Flatten(0)), nn.BCEWithLogitsLoss, BINARY),
    "binary, probabilities": (NeuralNetBinaryClassifier, mlp(1, nn.Sigmoid()), nn.BCELoss, BINARY),
    "regressor": (NeuralNetRegressor, mlp(1), nn.MSELoss, REAL),
    "regressor, absolute": (NeuralNetRegressor, mlp(1), nn.SmoothL1Loss, REAL),
    "squeezed": (Squeezes, mlp(1), nn.MSELoss, REAL[:, 0]),
    "net": (NeuralNet, mlp(3), CE, CLASSES),
    "another argument": (Scales, Scaled(), CE, CLASSES),
    "standardised": (Standardises, mlp(3), CE, CLASSES),
    "smoothed": (Smoothed, mlp(3), CE, CLASSES),
    "class_weight of its own": (Halved, mlp(3), CE, CLASSES),
    "penalised": (Penalised, mlp(3), CE, CLASSES),
}


def fitted(kind):
    net_class, module, criterion, y = NETS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return net_class(module, criterion=criterion, max_epochs=2, train_split=None, verbose=0).fit(X, y), y


@pytest.mark.parametrize("kind", NETS)
def test_f_is_the_loss_that_skorch_computes(kind):
    net, y = fitted(kind)
    f = check_objective(net, X, y)
    assert f.value() == pytest.approx(loss_scoring(net, X, y), rel=1e-5)
    v = torch.randn(f.n_params, generator=torch.Generator().manual_seed(0))
    double = check_objective(net, X, y, dtype=torch.float64)
    step = 1e-5
    up, down = double.theta0 + step * v, double.theta0 - step * v
    difference = (double.value(up) - double.value(down)) / (2 * step)
    assert float(double.gradient()[1] @ v.double()) == pytest.approx(difference, rel=1e-4, abs=1e-7)
    assert sharpness(net, X, y, random_state=0).value > 0
    assert hessian_eigenvalues(net, X, y, k=1, random_state=0).converged
    assert gradient_noise_scale(net, X, y, random_state=0).trace > 0


@pytest.mark.parametrize("kind", NETS)
def test_chunks_make_no_difference(kind):
    net, y = fitted(kind)
    whole, parts = (check_objective(net, X, y, chunk_size=size, dtype=torch.float64) for size in (60, 13))
    torch.testing.assert_close(parts.gradient(), whole.gradient(), rtol=1e-6, atol=1e-8)


def test_rows_of_a_net_with_a_penalty():
    net, y = fitted("penalised")
    f = check_objective(net, X, y, dtype=torch.float64)
    norms = [float(f.batch_gradient([i])[1].norm()) for i in range(5)]
    torch.testing.assert_close(f.row_gradient_norms([*range(5)]), torch.tensor(norms, dtype=torch.float64))


def test_a_net_whose_module_returns_two_things_that_its_loss_takes():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = TwoOutputs(Sums(), criterion=CE, max_epochs=1, train_split=None, verbose=0).fit(X, CLASSES)
    f = check_objective(net, X, CLASSES)
    assert f.value() == pytest.approx(loss_scoring(net, X, CLASSES), rel=1e-5)
    assert sharpness(net, X, CLASSES, random_state=0).value > 0
    with pytest.raises(ValueError, match="criterion must be a mean over samples"):  # the sum is not one
        check_objective(net, X, CLASSES, chunk_size=20)
