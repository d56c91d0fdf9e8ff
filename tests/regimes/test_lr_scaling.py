import pytest

from sklgap.regimes import check_lr_scaling, lr_factor


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
