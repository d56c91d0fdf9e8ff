import pytest

from sklgap.regimes import check_lr_scaling, lr_factor, transfer_hyperparameters
from sklgap.regimes._lr_scaling import largest_ratio, scaled_beta, scaled_eps


@pytest.mark.parametrize(("rule", "factor"), [(None, 1.0), ("sqrt", 4.0), ("linear", 16.0)])
def test_factor(rule, factor):
    assert check_lr_scaling(rule) == rule
    assert lr_factor(rule, 4096, 256) == factor
    assert lr_factor(rule, 256, 4096) == 1 / factor
    assert lr_factor(rule, 256, 256) == 1


@pytest.mark.parametrize("rule", ["square", 2, True])
def test_unknown_rule(rule):
    with pytest.raises(ValueError, match="lr_scaling must be None, 'sqrt', 'linear' or 'sde'; got "):
        check_lr_scaling(rule)


@pytest.mark.parametrize(
    ("beta", "k", "expected"), [(0.9, 4, 0.6), (0.999, 0.5, 0.9995), (0.5, 3, -0.5), (0.9, 10, 0.0)]
)
def test_a_beta_at_another_batch_size(beta, k, expected):
    assert scaled_beta(beta, k) == pytest.approx(expected, abs=1e-15)
    assert (scaled_beta(beta, k) < 0) == (k > largest_ratio(beta))


@pytest.mark.parametrize("beta", [0.9, 0.99, 0.999, 0.95, 0.7])
def test_a_beta_is_exactly_0_at_the_largest_batch_size(beta):
    k = round(1 / (1 - beta), 9)
    assert scaled_beta(beta, k) == 0
    assert scaled_beta(beta, 1.001 * k) < 0 < scaled_beta(beta, 0.999 * k)


@pytest.mark.parametrize("k", [0.25, 2, 4.75])
def test_transfer_hyperparameters_has_the_same_rule(k):
    betas, eps, size = (0.8, 0.95), 1e-6, 400
    values = transfer_hyperparameters({"lr": 1.0, "betas": betas, "eps": eps}, "Adam", size, int(k * size))[
        "sde"
    ].values
    assert values["betas"] == tuple(scaled_beta(beta, k) for beta in betas)
    assert values["eps"] == scaled_eps(eps, k) == pytest.approx(eps / k**0.5)
