import pytest
import torch
from torch import nn

from sklgap.objective import Objective
from sklgap.objective._batch_norm import batch_norm_layers, check_batch_norm, pool, set_buffers
from tests.cases import BIT_FOR_BIT, DOUBLE, FOUR_CHUNKS, WITH_BATCH_NORM
from tests.references import moments


@pytest.mark.parametrize("policy", ["batch", "population", "running"])
def test_policies(policy):
    assert check_batch_norm(policy) == policy


@pytest.mark.parametrize("policy", ["Batch", None, 1])
def test_unknown_policy(policy):
    with pytest.raises(ValueError, match="batch_norm must be one of 'batch', 'population', 'running'; got "):
        check_batch_norm(policy)


def test_all_layers_are_found_by_name():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm2d(3), nn.LayerNorm(3)))
    assert list(batch_norm_layers(module)) == ["0", "1.0"]


@pytest.mark.parametrize("sizes", [(4,), (3, 5, 2), (1, 6)])
def test_pooled_moments_are_those_of_all_rows(sizes):
    parts = [torch.randn(n, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in sizes]
    collected = [{"layer": [moments([part])]} for part in parts]
    mean, var = pool(collected, [n / sum(sizes) for n in sizes])["layer"]
    torch.testing.assert_close((mean, var), moments(parts), **DOUBLE)


def test_a_layer_used_twice_has_the_moments_of_both_uses():
    x, z = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pooled = pool([{"layer": [moments([x]), moments([z])]}], [1.0])
    torch.testing.assert_close(pooled["layer"], moments([x, z]), **DOUBLE)


def test_set_buffers_writes_in_place_and_skips_what_is_not_there():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False))
    buffer = module[0].running_mean
    statistics = {name: (torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])) for name in ("0", "2")}
    set_buffers(module, statistics)
    assert module[0].running_mean is buffer
    assert buffer.tolist() == [1, 2]
    assert module[0].running_var.tolist() == [3, 4]
    torch.testing.assert_close(module[1].running_mean, torch.zeros(2), **BIT_FOR_BIT)
    assert module[2].running_mean is None


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_an_interrupted_evaluation_leaves_nothing_behind(name):
    module, criterion, X, y = WITH_BATCH_NORM[name]()
    interrupt = []

    def loss(y_pred, target):
        if interrupt:
            raise KeyboardInterrupt
        return criterion(y_pred, target)

    objective = Objective(module, loss, (X, y), batch_norm="population", chunk_size=FOUR_CHUNKS)
    value, gradient = objective.gradient()
    for evaluate in (objective.value, objective.gradient):
        interrupt.append(True)
        with pytest.raises(KeyboardInterrupt):
            evaluate()
        interrupt.clear()
        assert objective.value() == objective.value() == pytest.approx(value, rel=1e-14)
        torch.testing.assert_close(objective.gradient()[1], gradient, **BIT_FOR_BIT)
