from functools import partial

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn.functional import cross_entropy

from sklgap.inspection import (
    average_sharpness,
    ball_sharpness,
    fisher_sharpness,
    fisher_trace,
    m_sharpness,
    sharpness,
)
from sklgap.inspection._flatness import flatness
from sklgap.inspection._normalized_logits import measured_objective, normalized
from sklgap.objective import Objective
from tests.inspection.flat_nets import louder, relu_net
from tests.landscapes import landscape, vector
from tests.tiny import blobs, small

MEASURES = {"average": average_sharpness, "ball": ball_sharpness, "m": m_sharpness}


def by_numpy(logits):
    """Each sample's logits with mean 0 and mean square 1."""
    rows = [(z - z.mean()) / np.sqrt(np.mean((z - z.mean()) ** 2)) for z in logits.detach().numpy()]
    return torch.from_numpy(np.stack(rows))


@pytest.mark.parametrize("seed", range(3))
def test_the_definition(seed):
    (net, criterion), X, y = relu_net(seed=seed)
    expected = cross_entropy(by_numpy(net(X)), y)
    with measured_objective((net, criterion), X, y, normalize_logits=True) as objective:
        assert objective.value() == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_classes", [1, 2])
@pytest.mark.parametrize("name", MEASURES)
def test_two_classes_are_refused(name, n_classes, dtype):
    """Their normalised logits are 1 and -1, and a rise would be rounding."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, n_classes)).to(dtype)
    X, y = torch.randn(20, 3, dtype=dtype), torch.arange(20) % n_classes
    with pytest.raises(
        ValueError, match=rf"^normalize_logits must be False for fewer than 3 classes.* got logits of {n_classes}"
    ):
        MEASURES[name]((net, nn.CrossEntropyLoss()), X, y, normalize_logits=True)
    if n_classes == 1:
        return  # its loss is 0 everywhere
    table = flatness((net, nn.CrossEntropyLoss()), X, y, random_state=0)
    assert not any(label.startswith("normalized") for label in table.measures)
    assert all("fewer than 3 classes" in why for label, why in table.left_out.items() if label.startswith("normalized"))


def test_logits_of_float32_are_normalized_in_float64():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert normalized(logits).dtype == torch.float64
    assert torch.allclose(normalized(logits), by_numpy(logits.double()), rtol=1e-12)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("adaptive", [False, True])
def test_a_function_of_the_same_classes_by_hand(name, adaptive):
    """A module that normalises its own logits, measured with the plain loss."""

    class Normalized(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, X):
            z = self.net(X)
            z = z - z.mean(dim=1, keepdim=True)
            return z / z.square().mean(dim=1, keepdim=True).sqrt()

    (net, criterion), X, y = relu_net()
    options = {"adaptive": adaptive, "random_state": 0}
    record = MEASURES[name]((net, criterion), X, y, normalize_logits=True, **options)
    by_hand = MEASURES[name]((Normalized(net), criterion), X, y, **options)
    assert record.value == pytest.approx(by_hand.value, rel=1e-8)
    assert record.f0 == pytest.approx(by_hand.f0, rel=1e-12)
    assert record.name == f"{by_hand.name}, normalized logits"
    assert record.parameters["normalize_logits"]


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("factor", [0.1, 20.0])
def test_the_scale_of_the_logits_does_not_matter(name, factor):
    pair, X, y = relu_net()
    options = {"adaptive": True, "random_state": 0}
    one, two = (MEASURES[name](p, X, y, normalize_logits=True, **options).value for p in (pair, louder(pair, factor)))
    assert two == pytest.approx(one, rel=1e-7)
    one, two = (MEASURES[name](p, X, y, **options).value for p in (pair, louder(pair, factor)))
    assert abs(two / one - 1) > 0.1


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("criterion", [nn.MSELoss(), nn.NLLLoss(), lambda a, b: a.mean()])
def test_other_criteria_are_refused(name, criterion):
    (net, _), X, y = relu_net()
    target = net(X).detach() + 1 if isinstance(criterion, nn.MSELoss) else y
    with pytest.raises(ValueError, match=r"^normalize_logits must be False unless the criterion is"):
        MEASURES[name]((net, criterion), X, target, normalize_logits=True)


class Cooler(nn.CrossEntropyLoss):
    """Its probabilities are those of other logits."""

    def forward(self, y_pred, y):
        return super().forward(y_pred / 5, y)


class Focal(nn.CrossEntropyLoss):
    def forward(self, y_pred, y):
        losses = cross_entropy(y_pred, y, reduction="none")
        return ((1 - torch.exp(-losses)) ** 2 * losses).mean()


class CoolerNet(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred / 5, y_true, *args, **kwargs)


NORMALIZED = {name: partial(measure, normalize_logits=True) for name, measure in MEASURES.items()}
OF_CLASSES = NORMALIZED | {"fisher trace": fisher_trace, "fisher sharpness": fisher_sharpness}


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("kind", ["temperature", "focal", "get_loss"])
def test_a_cross_entropy_that_is_none_is_refused(name, kind):
    """What a subclass computes is not known, although it is a CrossEntropyLoss for Python."""
    (net, _), X, y = relu_net()
    criterion = {"temperature": Cooler(), "focal": Focal(), "get_loss": None}[kind]
    measured = (net, criterion)
    if criterion is None:
        measured = CoolerNet(net, criterion=nn.CrossEntropyLoss, train_split=None).initialize()
    with pytest.raises(ValueError, match=r"riterion (is|must be) torch.nn.CrossEntropyLoss"):
        OF_CLASSES[name](measured, X, y, random_state=0)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_net_of_skorch_is_measured_as_its_module(name):
    (net, criterion), X, y = relu_net()
    whole = NeuralNetClassifier(net, criterion=nn.CrossEntropyLoss, train_split=None).initialize()
    one, two = (OF_CLASSES[name](measured, X, y, random_state=0) for measured in (whole, (net, criterion)))
    assert one.value == pytest.approx(two.value, rel=1e-9)


def test_the_function_of_torch_is_the_same_criterion():
    (net, criterion), X, y = relu_net()
    one, two = (
        ball_sharpness((net, c), X, y, normalize_logits=True, random_state=0) for c in (criterion, cross_entropy)
    )
    assert one.value == pytest.approx(two.value, rel=1e-9)


def test_estimators_of_ours_with_class_weights():
    X, y = blobs(60)
    model = small(max_epochs=2, class_weight="balanced", random_state=0).fit(X, y)
    record = average_sharpness(model, X, y, normalize_logits=True, random_state=0)
    assert record.f0 > 0
    assert record.f0 != average_sharpness(model, X, y, random_state=0).f0


@pytest.mark.parametrize("fails", [False, True])
def test_the_objective_has_its_own_loss_again_afterwards(fails):
    pair, X, y = relu_net()
    objective = Objective(*pair, (X, y), dtype=torch.float32)
    before = objective.value(), sharpness(objective, random_state=0).value
    if fails:
        with pytest.raises(ValueError, match=r"^rho must be so small"):
            m_sharpness(objective, rho=3e38, normalize_logits=True)
    else:
        ball_sharpness(objective, normalize_logits=True, random_state=0)
    assert (objective.value(), sharpness(objective, random_state=0).value) == before


def test_samples_whose_logits_are_all_equal():
    (net, criterion), X, y = relu_net()
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].bias.fill_(0.5)
    for measure in MEASURES.values():
        with pytest.raises(
            ValueError, match=r"^The loss must be finite .* needs logits that differ within every sample"
        ):
            measure((net, criterion), X, y, normalize_logits=True)


def test_outputs_that_are_no_logits():
    module, criterion, X, y = landscape(lambda t: t.sum(), vector(3, 0))
    with pytest.raises(ValueError, match=r"^normalize_logits must be False"):
        ball_sharpness((module, criterion), X, y, normalize_logits=True)
    with pytest.raises(TypeError, match=r"^normalize_logits needs a module that returns logits as a tensor; got tuple"):
        normalized((torch.zeros(2, 3),))
