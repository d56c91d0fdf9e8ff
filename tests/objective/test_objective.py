import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sklgap.objective import Objective, Subspace
from tests.cases import (
    BIT_FOR_BIT,
    DIFFERENCES,
    DOUBLE,
    FOUR_CHUNKS,
    N_ROWS,
    ONE_CHUNK,
    POLICIES,
    PROBLEMS,
    SINGLE,
    WITH_BATCH_NORM,
    no_global_random_numbers,
    seeded_module,
    vectors,
)
from tests.objective.configurations import direction_for, everywhere, objective_and_reference
from tests.references import (
    central_differences,
    dense_hessian,
    flat,
    gradient,
    hessian_product,
    loss_of_flat,
    permuted_chunks,
)

# -- against plain torch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
def test_one_chunk_is_the_loss_of_the_module_in_training_mode(name):
    module, criterion, X, y = PROBLEMS[name]()
    value = Objective(module, criterion, (X, y)).value()
    assert value == pytest.approx(criterion(module.train()(X), y).item(), rel=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
def test_chunks_are_the_permuted_ones(name):
    module, criterion, X, y = PROBLEMS[name]()
    value = Objective(module, criterion, (X, y), chunk_size=FOUR_CHUNKS).value()
    chunks = permuted_chunks(N_ROWS, FOUR_CHUNKS)
    assert sorted(map(len, chunks)) == [5, 6, 6, 6]
    losses = [criterion(module.train()(X[c]), y[c]).item() * len(c) for c in chunks]
    assert value == pytest.approx(sum(losses) / N_ROWS, rel=1e-12)


@pytest.mark.parametrize("chunk_size", [ONE_CHUNK, FOUR_CHUNKS])
@pytest.mark.parametrize("name", PROBLEMS)
def test_running_is_evaluation_mode(name, chunk_size):
    module, criterion, X, y = PROBLEMS[name]()
    value = Objective(module, criterion, (X, y), batch_norm="running", chunk_size=chunk_size).value()
    assert value == pytest.approx(criterion(module.eval()(X), y).item(), rel=1e-12)


def test_population_is_evaluation_mode_with_recomputed_buffers():
    # One batch-norm layer: its statistics do not depend on how the layers before it normalise.
    module, criterion, X, y = WITH_BATCH_NORM["conv_batch_norm"]()
    value = Objective(module, criterion, (X, y), batch_norm="population", chunk_size=FOUR_CHUNKS).value()
    inputs = module[0](X).detach()
    module[1].running_mean.copy_(inputs.mean(dim=(0, 2, 3)))
    module[1].running_var.copy_(inputs.var(dim=(0, 2, 3), correction=0))
    assert value == pytest.approx(criterion(module.eval()(X), y).item(), rel=1e-12)


def test_policies_differ():
    values = {objective_and_reference("batch_norm", policy, FOUR_CHUNKS)[0].value() for policy in POLICIES}
    assert min(abs(a - b) for a in values for b in values if a != b) > 1e-4
    assert len(values) == 3


# -- against the written-out reference ------------------------------------------------------------------------------


@everywhere
def test_value(name, policy, chunk_size):
    objective, f, theta = objective_and_reference(name, policy, chunk_size)
    assert objective.value(theta) == pytest.approx(f(theta).item(), rel=1e-12)
    assert objective.value() == pytest.approx(f(objective.theta0).item(), rel=1e-12)
    assert objective.value(objective.theta0.numpy()) == objective.value()


@everywhere
def test_gradient(name, policy, chunk_size):
    objective, f, theta = objective_and_reference(name, policy, chunk_size)
    value, g = objective.gradient(theta)
    assert value == pytest.approx(objective.value(theta), rel=1e-12)
    torch.testing.assert_close(g, gradient(f, theta), **DOUBLE)
    torch.testing.assert_close(g, central_differences(objective.value, theta), **DIFFERENCES)
    torch.testing.assert_close(objective.gradient()[1], gradient(f, objective.theta0), **DOUBLE)
    assert not g.requires_grad


@everywhere
def test_hessian_vector_product(name, policy, chunk_size):
    objective, f, theta = objective_and_reference(name, policy, chunk_size)
    v = direction_for(objective)
    torch.testing.assert_close(objective.hvp(v, theta), hessian_product(f, theta, v), **DOUBLE)
    torch.testing.assert_close(objective.hvp(v.numpy()), hessian_product(f, objective.theta0, v), **DOUBLE)


@everywhere
def test_float32(name, policy, chunk_size):
    objective, f, theta = objective_and_reference(name, policy, chunk_size, dtype=torch.float32)
    v = direction_for(objective)
    value, g = objective.gradient(theta)
    product = objective.hvp(v, theta)
    assert {objective.theta0.dtype, g.dtype, product.dtype} == {torch.float32}
    assert value == pytest.approx(f(theta).item(), rel=1e-5)
    torch.testing.assert_close(g.double(), gradient(f, theta), **SINGLE)
    torch.testing.assert_close(product.double(), hessian_product(f, theta, v), **SINGLE)


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_with_one_chunk_batch_and_population_are_the_same_function(name):
    (batch, _, theta), (population, _, _) = (
        objective_and_reference(name, policy, ONE_CHUNK) for policy in ("batch", "population")
    )
    v = direction_for(batch)
    assert batch.value(theta) == pytest.approx(population.value(theta), rel=1e-12)
    torch.testing.assert_close(batch.gradient(theta)[1], population.gradient(theta)[1], **DOUBLE)
    torch.testing.assert_close(batch.hvp(v, theta), population.hvp(v, theta), **DOUBLE)


def test_population_statistics_are_those_of_the_data():
    module, criterion, X, y = WITH_BATCH_NORM["conv_batch_norm"]()
    objective = Objective(module, criterion, (X, y), batch_norm="population", chunk_size=FOUR_CHUNKS)
    mean, var = objective.population_statistics()["1"]
    inputs = module[0](X).detach()
    torch.testing.assert_close(mean, inputs.mean(dim=(0, 2, 3)), **DOUBLE)
    torch.testing.assert_close(var, inputs.var(dim=(0, 2, 3), correction=0), **DOUBLE)
    assert Objective(module, criterion, (X, y)).population_statistics() == {}


def test_population_with_a_frozen_trunk():
    # The statistics of the first batch norm do not depend on theta then.
    module, criterion, X, y = WITH_BATCH_NORM["batch_norm"]()
    module[0].requires_grad_(False)
    objective = Objective(module, criterion, (X, y), batch_norm="population", chunk_size=FOUR_CHUNKS)
    f = loss_of_flat(module, criterion, X, y, "population", FOUR_CHUNKS)
    torch.testing.assert_close(objective.gradient()[1], gradient(f, objective.theta0), **DOUBLE)


# -- what the numbers are made of -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("chunk_size", [ONE_CHUNK, FOUR_CHUNKS])
def test_accuracy(policy, chunk_size):
    module, criterion, X, y = PROBLEMS["tanh"]()
    loss, accuracy = Objective(module, criterion, (X, y), batch_norm=policy, chunk_size=chunk_size).evaluate()
    assert accuracy == pytest.approx((module(X).argmax(1) == y).double().mean().item(), rel=1e-12)
    assert loss == pytest.approx(criterion(module(X), y).item(), rel=1e-12)


def test_accuracy_follows_the_policy():
    module, criterion, X, y = WITH_BATCH_NORM["batch_norm"]()
    evaluations = {p: Objective(module, criterion, (X, y), batch_norm=p).evaluate() for p in POLICIES}
    for policy, by_hand in (("batch", module.train()), ("running", copy.deepcopy(module).eval())):
        module, *_ = WITH_BATCH_NORM["batch_norm"]()
        by_hand.load_state_dict(module.state_dict())
        assert evaluations[policy].accuracy == (by_hand(X).argmax(1) == y).double().mean().item()


def test_accuracy_of_a_regression_is_nan():
    module = seeded_module(lambda: nn.Linear(4, 1))
    X, _ = vectors()
    loss, accuracy = Objective(module, nn.MSELoss(), (X, X[:, :1])).evaluate()
    assert loss == pytest.approx(nn.functional.mse_loss(module(X), X[:, :1]).item(), rel=1e-12)
    assert np.isnan(accuracy)


@given(n_rows=st.integers(1, 40), chunk_size=st.integers(1, 45), seed=st.integers(0, 5))
def test_any_chunking_weighs_every_row_once(n_rows, chunk_size, seed):
    module = seeded_module(lambda: nn.Linear(4, 3), seed)
    X, y = vectors(n_rows, seed=seed)
    sizes = []

    def criterion(y_pred, y):
        sizes.append(len(y))
        return nn.functional.cross_entropy(y_pred, y)

    objective = Objective(module, criterion, (X, y), chunk_size=chunk_size, check=False)
    loss = nn.functional.cross_entropy(module(X), y)
    value, accuracy = objective.evaluate()
    assert value == pytest.approx(loss.item(), rel=1e-12)
    assert accuracy == pytest.approx((module(X).argmax(1) == y).double().mean().item(), rel=1e-12)
    assert sum(sizes) == n_rows
    assert len(sizes) == -(-n_rows // chunk_size)
    assert max(sizes) - min(sizes) <= 1
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])
    torch.testing.assert_close(objective.gradient()[1], expected, **DOUBLE)


def test_chunks_of_data_sorted_by_class_are_mixed():
    X, y = vectors(60)
    seen = []

    def criterion(y_pred, y):
        seen.append(set(y.tolist()))
        return nn.functional.cross_entropy(y_pred, y)

    Objective(seeded_module(lambda: nn.Linear(4, 3)), criterion, (X, y), chunk_size=20, check=False).value()
    assert seen == [{0, 1, 2}] * 3


def test_float32_sums_keep_small_losses():
    # exp(-30) is lost beside 1 in float32: the loss must be taken in float64 on the outputs.
    module = nn.Linear(1, 2, bias=False)
    module.weight.data = torch.tensor([[30.0], [0.0]])
    data = (torch.ones(4, 1), torch.zeros(4, dtype=torch.long))
    assert Objective(module, nn.CrossEntropyLoss(), data).value() == pytest.approx(np.log1p(np.exp(-30)), rel=1e-6)


@pytest.mark.parametrize("freeze", ["0.weight", "2.bias"])
def test_frozen_parameters_are_constants(freeze):
    module, criterion, X, y = PROBLEMS["tanh"]()
    dict(module.named_parameters())[freeze].requires_grad_(False)
    objective = Objective(module, criterion, (X, y))
    assert objective.n_params == sum(p.numel() for p in module.parameters() if p.requires_grad)
    f = loss_of_flat(module, criterion, X, y)
    torch.testing.assert_close(objective.gradient()[1], gradient(f, flat(module)), **DOUBLE)
    v = direction_for(objective)
    torch.testing.assert_close(objective.hvp(v), dense_hessian(f, flat(module)) @ v, **DOUBLE)


def test_theta_has_the_order_of_named_parameters():
    module, criterion, X, y = PROBLEMS["batch_norm"]()
    objective = Objective(module, criterion, (X, y))
    torch.testing.assert_close(objective.theta0, flat(module), **BIT_FOR_BIT)
    assert objective.n_params == 4 * 5 + 5 + 10 + 5 * 4 + 4 + 4 * 3 + 3
    assert objective.n_samples == N_ROWS


# -- nothing of the user's is touched ----------------------------------------------------------------------------


def _dropout_net():
    layers = [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3)]
    return seeded_module(lambda: nn.Sequential(*layers))


def _exercise(objective):
    v = direction_for(objective)
    theta = objective.theta0 + v
    subspace = Subspace(objective.theta0, torch.stack([v, theta]).to(objective.dtype))
    for f, at, along in ((objective, theta, v), (objective.restrict(subspace), torch.ones(2), torch.ones(2))):
        f.value(at), f.evaluate(at), f.gradient(at), f.hvp(along, at)
    objective.value()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_the_module_is_left_as_it_was(policy, training, dtype):
    module = _dropout_net().train(training)
    module[0].eval()
    X, y = vectors()
    nn.functional.cross_entropy(module(X), y).backward()
    module[0].register_forward_hook(lambda *_: None)
    before = copy.deepcopy(module.state_dict())
    grads = [p.grad.clone() for p in module.parameters()]
    tensors = [id(t) for t in module.state_dict(keep_vars=True).values()]
    modes = [m.training for m in module.modules()]
    forward = [vars(m).get("forward") for m in module.modules()]
    data = (X.clone(), y.clone())

    with no_global_random_numbers():
        settings = {"batch_norm": policy, "chunk_size": FOUR_CHUNKS, "dtype": dtype}
        _exercise(Objective(module, nn.CrossEntropyLoss(), (X, y), **settings))

    torch.testing.assert_close(dict(module.state_dict()), dict(before), **BIT_FOR_BIT)
    for p, g in zip(module.parameters(), grads, strict=True):
        torch.testing.assert_close(p.grad, g, **BIT_FOR_BIT)
    assert [id(t) for t in module.state_dict(keep_vars=True).values()] == tensors
    assert [m.training for m in module.modules()] == modes
    assert [vars(m).get("forward") for m in module.modules()] == forward
    assert len(module[0]._forward_hooks) == 1
    torch.testing.assert_close((X, y), data, **BIT_FOR_BIT)


def test_the_criterion_is_left_as_it_was():
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    module, _, X, y = PROBLEMS["tanh"]()
    Objective(module, criterion, (X, y)).value()
    assert criterion.weight.dtype == torch.float32


@pytest.mark.parametrize("policy", POLICIES)
def test_dropout_is_off(policy):
    module = _dropout_net()
    without = copy.deepcopy(module)
    without[3].p = 0.0
    X, y = vectors()
    values = [Objective(m, nn.CrossEntropyLoss(), (X, y), batch_norm=policy).value() for m in (module, without)]
    assert values[0] == values[1]


def test_later_training_of_the_module_does_not_move_the_objective():
    module, criterion, X, y = PROBLEMS["tanh"]()
    objective = Objective(module, criterion, (X, y))
    value = objective.value()
    nn.init.zeros_(module[0].weight)
    assert objective.value() == value
