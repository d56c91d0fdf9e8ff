"""The hyper-parameters of a single step."""

import pytest
import torch
from torch import nn

from sklgap.training._learning_rate import check_moments, scaled_step


def adam(**options):
    return torch.optim.Adam(nn.Linear(2, 1).parameters(), lr=0.1, **options)


def groups_of(optimizer):
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("factor", "ratio", "changed"),
    [
        (1, 1.0, {}),
        (2.0, 1.0, {"lr": 0.2}),
        (1, 4.0, {"betas": (0.6, 0.996), "eps": 5e-9}),
        (0.5, 4.0, {"lr": 0.05, "betas": (0.6, 0.996), "eps": 5e-9}),
    ],
)
def test_a_step_is_scaled_and_the_optimiser_is_as_before(factor, ratio, changed):
    optimizer = adam()
    before = groups_of(optimizer)
    with scaled_step(optimizer, factor, ratio):
        (within,) = groups_of(optimizer)
        for name, value in (before[0] | changed).items():
            assert within[name] == (pytest.approx(value) if name in changed else value), name
    assert groups_of(optimizer) == before


def test_every_group_has_its_own():
    first, second = nn.Linear(2, 1).parameters()
    optimizer = torch.optim.Adam([{"params": [first], "lr": 1.0}, {"params": [second], "betas": (0.8, 0.9)}], lr=0.1)
    with scaled_step(optimizer, 3.0, 2.0):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([3.0, 0.3])
        assert optimizer.param_groups[1]["betas"] == pytest.approx((0.6, 0.8))
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.1]


def test_after_an_error_the_optimiser_is_as_before():
    optimizer = adam()
    before = groups_of(optimizer)
    with pytest.raises(RuntimeError, match="in the step"), scaled_step(optimizer, 3.0, 2.0):
        raise RuntimeError("in the step")
    assert groups_of(optimizer) == before


def test_an_optimiser_without_betas_has_a_rate():
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    with scaled_step(optimizer, 2.0):
        assert optimizer.param_groups[0]["lr"] == 0.2
    with pytest.raises(ValueError, match=r"^optimizer must be Adam or AdamW with lr_scaling='sde'; got SGD"):
        check_moments(optimizer, 20, 10)


def test_where_a_beta_would_be_below_0():
    check_moments(adam(), 100, 10)
    with pytest.raises(ValueError, match=r"^batch_size must be at most 100 .* got 101; use lr_scaling='sqrt'"):
        check_moments(adam(), 101, 10)
    with pytest.raises(ValueError, match=r"^batch_size must be at most 30 .*beta2=0.5"):
        check_moments(adam(betas=(0.9, 0.5)), 31, 15)
