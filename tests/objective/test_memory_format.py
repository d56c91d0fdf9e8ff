"""Images with their channels last in memory: the same numbers, or the order that they came in."""

import numpy as np
import pytest
import torch
from torch import nn

from sklgap import LBGapClassifier
from sklgap.objective import Objective, check_objective
from sklgap.objective._memory_format import channels_last, takes_channels_last

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


class Conv(nn.Module):
    """A convolution and a head, with the flattening between them that is asked for."""

    def __init__(self, flatten="flatten", channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 6 * 6, 3)
        self.how = flatten
        self.seen = []

    def forward(self, X):
        self.seen.append(X.stride())
        X = torch.relu(self.norm(self.conv(X)))
        if self.how == "view":
            X = X.view(len(X), -1)
        elif self.how == "memory":  # wrong for anything but the usual order
            X = torch.as_strided(X, (len(X), 144), (144, 1))
        else:
            X = X.flatten(1)
        return self.head(X)


def test_which_modules_take_it():
    assert takes_channels_last(Conv(), IMAGES)
    assert takes_channels_last(Conv(channels=1), IMAGES[:, :1])
    assert not takes_channels_last(Conv("view"), IMAGES)  # it fails
    assert not takes_channels_last(Conv("memory"), IMAGES)  # it gives other outputs
    assert not takes_channels_last(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), IMAGES)  # no convolution
    assert not takes_channels_last(nn.Conv2d(3, 4, 3), IMAGES.half())
    assert not takes_channels_last(Conv(), IMAGES.flatten(1))


def test_a_copy_in_the_other_order():
    for images in (IMAGES, IMAGES[:, :1].contiguous()):
        found = channels_last(images)
        assert torch.equal(found, images)
        assert found.stride()[1] == 1
        assert images.is_contiguous()


def test_trying_changes_nothing():
    torch.manual_seed(0)
    module = Conv()
    state, random_state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    module.train()
    takes_channels_last(module, IMAGES)
    assert module.training
    assert not module.seen
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in state.items())
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("how", ["flatten", "view", "memory"])
@pytest.mark.parametrize("policy", ["batch", "population", "running"])
def test_values_and_gradients_are_those_of_the_usual_order(how, policy):
    torch.manual_seed(1)
    module = Conv(how).double()
    f = Objective(module, nn.CrossEntropyLoss(), (IMAGES, LABELS), batch_norm=policy, chunk_size=3, dtype=torch.float64)
    assert f._channels_last == (how == "flatten")
    value, gradient = f.gradient()
    product = f.hvp(gradient)
    f._channels_last = False
    plain, plain_gradient = f.gradient()
    assert value == pytest.approx(plain, rel=1e-12)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(product, f.hvp(plain_gradient), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("how", ["flatten", "view"])
def test_a_fit(how):
    """Every batch of a training comes with its channels last, where the net takes it."""
    rng = np.random.default_rng(0)
    X, y = rng.random((30, 3, 8, 8), dtype=np.float32), np.arange(30) % 3
    model = LBGapClassifier(Conv(how), batch_size=10, max_epochs=2, tol=None, random_state=0).fit(X, y)
    strides = {stride[1] for stride in model.module_.seen if stride}
    assert (1 in strides) == (how == "flatten")
    torch.testing.assert_close(
        torch.as_tensor(model.predict_proba(X)), torch.as_tensor(model.predict_proba(np.asfortranarray(X)))
    )


def test_the_two_orders_train_alike(monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.random((30, 3, 8, 8), dtype=np.float32), np.arange(30) % 3
    given = {"batch_size": 10, "max_epochs": 2, "tol": None, "random_state": 0, "lr": 0.1}
    given["optimizer"] = torch.optim.SGD  # ADAM makes steps of the rounding of zero gradients
    losses = LBGapClassifier(Conv, **given).fit(X, y).history_[:, "train_loss"]
    monkeypatch.setattr("sklgap.training._net.takes_channels_last", lambda *_: False)
    plain = LBGapClassifier(Conv, **given).fit(X, y).history_[:, "train_loss"]
    assert losses == pytest.approx(plain, rel=1e-5)


def test_a_fitted_estimator_is_measured_in_the_order_that_it_was_trained_in():
    X = IMAGES.flatten(1).repeat(4, 1).numpy()
    y = np.arange(len(X)) % 3
    model = LBGapClassifier(Conv, input_shape=IMAGES.shape[1:], max_epochs=1, tol=None).fit(X, y)
    objective = check_objective(model, X, y)
    assert objective._channels_last
    plain = Objective(model.module_, nn.CrossEntropyLoss(), (torch.from_numpy(X).reshape(-1, *IMAGES.shape[1:]), y))
    np.testing.assert_allclose(objective.value(), plain.value(), rtol=1e-6)
    exact = check_objective(model, X, y, dtype=torch.float64)
    own, gradient = objective.gradient()[1], exact.gradient()[1]
    assert (own - gradient).norm() <= 1e-5 * gradient.norm()  # of a bias before batch norm rounding is all there is
    v = torch.randn(len(own), generator=torch.Generator().manual_seed(1))
    product = exact.hvp(v)
    assert (objective.hvp(v) - product).norm() <= 1e-4 * product.norm()
    assert objective._channels_last
