"""What holds for every remedy, each at settings that are not neutral."""

import itertools

import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap import remedies
from sklgap._typing import Batch
from sklgap.objective._autodiff import value_and_grad
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._parameters import trainable_parameters
from sklgap.objective._row_loss import row_loss
from sklgap.regimes import split_rows
from sklgap.remedies import (
    SAM,
    Adversarial,
    Augmentation,
    BatchAugmentation,
    EntropySGD,
    GradientPenalty,
    LabelSmoothing,
    Mixup,
    Proximal,
    Remedy,
    SampleNoise,
    Stability,
    accumulate,
    compose,
)
from tests.cases import DOUBLE, PLAIN, PROBLEMS, no_global_random_numbers
from tests.remedies.steps import assert_equal, step_of, stepped
from tests.tiny import TinyC1, blobs, images, same_weights, small

REMEDIES = {
    "adversarial": Adversarial(0.2),
    "asam": SAM(0.5, adaptive=True),
    "entropy": EntropySGD(3, gamma=10.0),
    "label smoothing": LabelSmoothing(0.3),
    "noise": SampleNoise(0.5),
    "proximal": Proximal(0.5, inner_steps=2),
    "sam": SAM(0.2),
    "sam, rarely": SAM(0.2, every=2),
    "stability": Stability(0.3, weight=0.5),
}
IN_PARTS = SAM(0.2, sub_batch_size=6)  # batch norm sees the parts
MOVES_IMAGES = Augmentation(flip=False)  # another clean loss: that of the moved images
MIXES = Mixup(1.0)  # another clean loss: that of the mixed samples
PENALISES = GradientPenalty(0.5)  # not a mean over samples
COPIES = BatchAugmentation(MOVES_IMAGES, 2)
OF_VECTORS = {**REMEDIES, "sam in parts": IN_PARTS, "gradient penalty": PENALISES}
ALL = {**OF_VECTORS, "augmentation": MOVES_IMAGES, "mixup": MIXES, "batch augmentation": COPIES}
MEANS = [remedy for remedy in OF_VECTORS.values() if remedy.in_parts]


def test_every_remedy_is_here():
    public = {c for c in vars(remedies).values() if isinstance(c, type) and issubclass(c, Remedy)} - {Remedy}
    assert {type(remedy) for remedy in ALL.values()} == public


# -- one step ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remedy", [*REMEDIES.values(), PENALISES], ids=[*REMEDIES, "gradient penalty"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_loss_outputs_and_batch_norm_are_those_of_the_unmoved_weights(name, remedy):
    plain, criterion, X, y = PROBLEMS[name]()
    remedy = Proximal(remedy.proximal_lambda, 1) if isinstance(remedy, Proximal) else remedy  # a step moves on
    _, result, module = stepped(PROBLEMS[name](), [remedy])
    outputs = plain(X).detach()
    assert_equal(result["loss"], criterion(outputs, y))
    assert_equal(result["y_pred"], outputs)
    assert not result["loss"].requires_grad
    assert not result["y_pred"].requires_grad
    assert_equal(dict(module.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [*itertools.product(PLAIN, [*MEANS, MIXES]), ("conv", MOVES_IMAGES), ("conv", COPIES)],
    ids=str,
)
def test_micro_batches_are_the_batch(name, remedy):
    whole, small_parts = (stepped(PLAIN[name](), [remedy], micro_batch_size=size) for size in (None, 4))
    assert_equal(small_parts[0], whole[0], DOUBLE)
    assert_equal(small_parts[1], whole[1], DOUBLE)
    assert_equal(dict(small_parts[2].state_dict()), dict(whole[2].state_dict()), DOUBLE)


def of_drawn(remedy, problem, loss, batch, **kwargs):
    """Return gradients and Aux on a batch that the remedy has already transformed; weights drawn from one seed."""
    module = problem()[0]
    params = trainable_parameters(module)
    loss_fn = ModuleLoss(module, loss, params)
    return compose(loss_fn, [remedy], params, rng=torch.Generator().manual_seed(5), **kwargs)(params, {}, batch)


def with_class_weights():
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64))


CRITERIA = {
    "plain": nn.CrossEntropyLoss,
    "class weights": with_class_weights,
    "ignored class": lambda: nn.CrossEntropyLoss(ignore_index=1),
    "by class": lambda: row_loss(with_class_weights()).by_class(torch.tensor([0.5, 2.0, 0.0])),
}


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(
    ("name", "remedy"), [*itertools.product(PLAIN, REMEDIES.values()), ("conv", MOVES_IMAGES)], ids=str
)
def test_weights_are_repeated_rows(name, remedy, criterion):
    """Copies of a row share what was drawn for it; whole batches and micro-batches."""
    _, _, X, y = PLAIN[name]()
    counts = torch.arange(len(y)) % 4
    drawn = remedy.transform_batch(Batch(X, y, counts.double()), torch.Generator().manual_seed(3))
    index = torch.arange(len(y)).repeat_interleave(counts)
    factor, extra = drawn.factor, drawn.extra
    repeated = Batch(
        drawn.X[index],
        drawn.y[index],
        factor=None if factor is None else factor[index],
        extra=None if extra is None else {key: value[index] for key, value in extra.items()},
    )
    loss = CRITERIA[criterion]()
    expected, of_repeated = of_drawn(remedy, PLAIN[name], loss, repeated)
    for differentiate in (value_and_grad, lambda loss_fn: accumulate(value_and_grad(loss_fn), 4)):
        found, aux = of_drawn(remedy, PLAIN[name], loss, drawn, differentiate=differentiate)
        assert_equal(found, expected, DOUBLE)
        assert_equal(aux.loss, of_repeated.loss, DOUBLE)
        assert_equal(aux.y_pred[index], of_repeated.y_pred, DOUBLE)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_parts_with_their_own_perturbation_count_by_their_weights(criterion):
    """SAM in parts: the mean of the parts' gradients by what their samples count for."""
    _, _, X, y = PLAIN["tanh"]()
    batch, loss = Batch(X, y, (torch.arange(len(y)) % 4).double()), row_loss(CRITERIA[criterion]())
    found, _ = of_drawn(IN_PARTS, PLAIN["tanh"], loss, batch)
    parts = [of_drawn(SAM(0.2), PLAIN["tanh"], loss, batch.rows(rows)) for rows in split_rows(len(y), 6)]
    assert len(parts) > 2
    masses = [loss.weights(y[rows], batch.weight[rows], X.dtype).sum() for rows in split_rows(len(y), 6)]
    for name, gradient in found.items():
        expected = sum(mass * part[name] for mass, (part, _) in zip(masses, parts, strict=True)) / sum(masses)
        assert_equal(gradient, expected, DOUBLE)


class Partly(nn.Module):
    """One parameter frozen, one that the loss does not depend on."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.net, _, _, _ = PLAIN["tanh"]()
        self.net[0].bias.requires_grad_(False)

    def forward(self, X):
        return self.net(X)


# Not the proximal penalty, which depends on every weight.
@pytest.mark.parametrize("name", sorted(set(OF_VECTORS) - {"proximal"}))
def test_unused_and_frozen_parameters_are_left_alone(name):
    _, criterion, X, y = PLAIN["tanh"]()
    module = Partly()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    # Weight decay would move them if their gradient were zero instead of missing.
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    stepped((module, criterion, X, y), [OF_VECTORS[name]], optimizer=optimizer)
    assert module.unused.grad is None
    changed = {name for name, t in module.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"net.0.weight", "net.2.weight", "net.2.bias"}


class CallsTwice(torch.optim.SGD):
    """Evaluates its closure twice at the same weights and keeps both gradients."""

    def step(self, closure):
        self.seen = []
        for _ in range(2):
            closure()
            self.seen.append([p.grad.clone() for p in self.param_groups[0]["params"]])


@pytest.mark.parametrize("remedy", OF_VECTORS.values(), ids=OF_VECTORS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_gradient_is_a_function_of_the_weights_within_a_batch(name, remedy):
    """Line searches need that."""
    module, criterion, X, y = PROBLEMS[name]()
    optimizer = CallsTwice(module.parameters(), lr=0.1)
    step_of(module, criterion, [remedy], optimizer=optimizer)(Batch(X, y))
    first, second = optimizer.seen
    assert_equal(first, second)


@pytest.mark.parametrize("remedy", OF_VECTORS.values(), ids=OF_VECTORS)
def test_a_quasi_newton_optimiser(remedy):
    module, criterion, X, y = PLAIN["tanh"]()
    optimizer = torch.optim.LBFGS(module.parameters(), lr=0.5, max_iter=5)
    calls = []
    step = step_of(module, criterion, [remedy], optimizer=optimizer, on_grad=calls.append)
    plain = PLAIN["tanh"]()[0]
    assert_equal(step(Batch(X, y))["loss"], criterion(plain(X), y).detach(), DOUBLE)
    assert len(calls) > 2
    if not isinstance(remedy, SampleNoise):  # whose quadratic model is that of the noise
        assert criterion(module(X), y) < 0.99 * criterion(plain(X), y)


@pytest.mark.parametrize("remedy", [*OF_VECTORS.values(), MIXES], ids=[*OF_VECTORS, "mixup"])
def test_a_line_search_is_refused_where_the_loss_is_not_that_of_the_gradient(remedy):
    """It compares losses, and is given the clean ones: the gradient is that of a penalty, or of other weights."""
    module, criterion, X, y = PLAIN["tanh"]()
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=5, line_search_fn="strong_wolfe")
    factor = remedy.transform_batch(Batch(X, y), torch.Generator()).factor
    if remedy.changes_gradient or factor is not None:
        with pytest.raises(ValueError, match=f"^optimizer must have line_search_fn=None with {type(remedy).__name__}"):
            step_of(module, criterion, [remedy], optimizer=optimizer)
    else:
        step_of(module, criterion, [remedy], optimizer=optimizer)(Batch(X, y))
        assert criterion(module(X), y) < 0.99 * criterion(PLAIN["tanh"]()[0](X), y)


@pytest.mark.parametrize("remedy", ALL.values(), ids=ALL)
def test_data_and_random_state_are_left_alone(remedy):
    module, criterion, X, y = PLAIN["conv"]()
    before = X.clone(), y.clone()
    own = repr(vars(remedy))
    with no_global_random_numbers():
        stepped((module, criterion, X, y), [remedy])
    assert_equal((X, y), before)
    assert not X.requires_grad
    assert repr(vars(remedy)) == own


@pytest.mark.parametrize("remedy", ALL.values(), ids=ALL)
def test_random_numbers_come_from_the_step(remedy):
    draws = isinstance(remedy, Augmentation | BatchAugmentation | EntropySGD | Mixup | SampleNoise | Stability)
    first, again, other = (stepped(PLAIN["conv"](), [remedy], seed=seed)[0] for seed in (1, 1, 2))
    assert_equal(first, again)
    assert any(not torch.equal(first[name], other[name]) for name in first) == draws


# -- a fit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remedy", OF_VECTORS.values(), ids=OF_VECTORS)
def test_a_fit_repeats_whatever_the_global_generators(remedy):
    X, y = blobs()
    with no_global_random_numbers():
        first = small(remedies=[remedy]).fit(X, y)
    torch.rand(3)
    assert same_weights(first, small(remedies=[remedy]).fit(X, y))
    assert not same_weights(first, small(remedies=[remedy], random_state=1).fit(X, y))
    assert not same_weights(first, small().fit(X, y))
    # In the first epoch of a fit on one batch no weight has moved: its loss is the clean one.
    losses = [small(batch_size=-1, max_epochs=1, remedies=r).fit(X, y).train_loss_ for r in ((), [remedy])]
    if remedy is not IN_PARTS:  # their batch norm has statistics of its own
        assert losses[0] == losses[1]


@pytest.mark.parametrize("remedy", ALL.values(), ids=ALL)
def test_a_small_convolutional_net_on_images(remedy):
    X, y = images()
    model = small(net=TinyC1, batch_size=12, max_epochs=4, lr=0.03, remedies=[remedy]).fit(X, y)
    assert model.score(X, y) > 0.8


@pytest.mark.parametrize("remedy", OF_VECTORS.values(), ids=OF_VECTORS)
def test_behind_a_scaler(remedy):
    X, y = blobs()
    model = make_pipeline(StandardScaler(), small(remedies=[("it", remedy)], batch_size=12, max_epochs=6, lr=0.03))
    assert any(name.startswith("lbgapclassifier__remedies__it__") for name in model.get_params())
    assert model.fit(1000 * X + 7, y).score(1000 * X + 7, y) > 0.8
