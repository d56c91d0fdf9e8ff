import json
import math

import numpy as np
import pytest
from scipy import stats

from sklgap.experiments._statistics import rank_correlation
from tests.experiments.experiments import GROUPS, LB_ACCURACIES, LB_SHARPNESS, census, census_record

ALL = [(group, seed) for group in GROUPS for seed in range(6)]


def _strictly(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"JSON has {name}"))


def test_statistics():
    found = census()
    assert found.groups == GROUPS
    np.testing.assert_array_equal(found.values(("LB", "torch"), "sharpness_0.001"), 2 * np.array(LB_SHARPNESS))
    rho = found.rank_correlation(("LB", "torch"))
    assert rho.value == pytest.approx(stats.spearmanr(LB_SHARPNESS, LB_ACCURACIES).statistic)
    assert rho.excludes(0)
    contrasts = {(c.first, c.second): c for c in found.contrasts()}
    assert list(contrasts) == [
        (GROUPS[0], GROUPS[2]),
        (GROUPS[1], GROUPS[3]),
        (GROUPS[0], GROUPS[1]),
        (GROUPS[2], GROUPS[3]),
    ]
    of_regimes = contrasts[GROUPS[0], GROUPS[2]]
    assert of_regimes.sharpness_ratio.value == pytest.approx(4)
    # SB has 1, ..., 6 and LB 4, 8, ...: only SB's 5 and 6 are sharper than an LB minimum, and its 4 as sharp.
    assert of_regimes.share_sharper == pytest.approx((36 - 2 - 0.5) / 36)
    assert of_regimes.accuracy_difference.value == pytest.approx(np.mean(LB_ACCURACIES) - 0.955)
    of_inits = contrasts[GROUPS[2], GROUPS[3]]
    assert of_inits.sharpness_ratio.value == pytest.approx(2)
    assert of_inits.accuracy_difference.value == 0


def test_detectable_is_where_an_interval_leaves_0():
    for n in (6, 20, 50):
        rng, border = np.random.default_rng(0), census(n_seeds=n).detectable()
        for _ in range(300):
            found = rank_correlation(rng.normal(size=n), rng.normal(size=n))
            if found.has_interval and abs(abs(found.value) - border) > 0.002:
                assert found.excludes(0) == (abs(found.value) > border)
    assert math.isnan(census(n_seeds=3).detectable())


def test_printed():
    text = str(census())
    lines = text.splitlines()
    assert lines[0] == "6 minima a regime and initialisation: 1,000 training and 200 test samples, mean ± std"
    (row,) = [line for line in lines if line.startswith("LB, glorot_uniform  ")]
    for cell in ("1.0e-02 ± 0.0e+00", "87.50 ± 1.87", "14 ± 7.48", "   6       14     22   "):
        assert cell in row
    assert "LB, torch: the sharper minima test worse" in lines
    assert "SB, torch: no relation of sharpness and test accuracy is shown" in lines
    assert any(
        line.startswith("LB, torch against SB, torch: sharpness 4 times, 95 % interval [4, 4]; the sharper one in 93 %")
        for line in lines
    )
    assert any("of others the loss surface may have they say nothing" in line for line in lines)
    assert "trained to a loss of 0.05: " in str(census(target_loss=0.05))


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (0, 1, 2, 4, 3, 5)], ids=["perfectly", "nearly"])
def test_sharpness_that_goes_with_the_loss(order):
    records = [census_record(*group, i, train_loss=0.01 + 1e-4 * order[i] * (group == GROUPS[0])) for group, i in ALL]
    (sentence,) = [s for s in census(records).warnings() if "goes with the training loss" in s]
    assert sentence.startswith("In SB, glorot_uniform sharpness goes with the training loss (rank correlation +")
    assert not [s for s in census().warnings() if "goes with the training loss" in s]


def test_unequal_losses():
    records = [census_record(*group, seed, train_loss=0.001 if group[0] == "LB" else 0.01) for group, seed in ALL]
    (sentence,) = [s for s in census(records).warnings() if "Mean training losses" in s]
    assert "between 1.0e-03 and 1.0e-02" in sentence
    assert sentence.endswith("target_loss brings them nearer.")
    (sentence,) = [s for s in census(records, target_loss=0.01).warnings() if "Mean training losses" in s]
    assert "target_loss" not in sentence
    assert not [s for s in census().warnings() if "Mean training losses" in s]


def test_convergence():
    records = [census_record(*group, seed, converged=seed > 0) for group, seed in ALL]
    assert "SB, torch had not converged under its stopping rule in 1 of 6 fits." in census(records).warnings()
    assert "SB, torch missed the target loss in 1 of 6 fits." in census(records, target_loss=0.01).warnings()


def test_diverged_and_interrupted():
    lost = {"train_loss": math.nan, "sharpness_0.001": math.nan}
    records = [census_record("SB", "torch", seed, **(lost if seed == 2 else {})) for seed in range(3)]
    found = census(records, interrupted=True)
    assert found.groups == [("SB", "torch")]
    assert found.contrasts() == []
    assert "Interrupted: 3 of 24 fits had finished and are reported." in found.warnings()
    assert "SB, torch diverged in 1 of 3 fits: left out." in found.warnings()
    assert len(found.values(("SB", "torch"), "sharpness_0.001")) == 2
    assert "nan" not in str(found)
    _strictly(found.to_json())


def test_the_accuracy_of_a_diverged_fit_is_no_minimum_s():
    lost = {"train_loss": math.nan, "sharpness_0.001": math.nan, "test_accuracy": 0.1}
    records = [census_record(*group, i, **(lost if (group, i) == (GROUPS[0], 0) else {})) for group, i in ALL]
    found = census(records)
    np.testing.assert_array_equal(
        found.by_seed(GROUPS[0], "test_accuracy"), [math.nan, *[0.96, 0.95, 0.96, 0.95, 0.96]]
    )
    of_regimes = found.contrasts()[0]
    assert of_regimes.accuracy_difference.n == 5
    assert of_regimes.accuracy_difference.value == pytest.approx(np.mean(LB_ACCURACIES[1:]) - 0.956)


def test_one_seed():
    text = str(census([census_record(*group, 0) for group in GROUPS], n_seeds=1))
    assert text.startswith("1 minimum a regime")
    assert "nan" not in text


def test_files():
    found = census()
    content = _strictly(found.to_json())
    assert content["records"] == found.records
    assert content["groups"][0]["n"] == 6
    assert content["contrasts"][0]["sharpness_ratio"]["value"] == pytest.approx(4)
    pytest.importorskip("pandas")
    assert len(found.to_frame()) == 24
