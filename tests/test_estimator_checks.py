"""Every check that scikit-learn has for an estimator: none fails, none is left out.

Two are expected to fail where batches do not hold all samples, and pass where they do.
"""

import warnings

import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

from sklgap import LBGapClassifier
from sklgap.regimes import SwitchBatch
from tests.tiny import TinyF1

# scikit-learn runs these only where SCIPY_ARRAY_API is set and the estimator claims support, which ours does not.
ARRAY_API_CHECKS = {"check_array_api_input", "check_array_api_input_and_values"}

# Of scikit-learn 1.6 to 1.9: fewer would mean that a tag switched checks off instead of passing them.
FEWEST_CHECKS = 50

# A batch holds a sample of weight 2 once and its two copies seldom together: the updates differ, not what they aim at.
SHUFFLED = "shuffled mini-batches: a sample of weight 2 and two copies of it come in other batches"
EXPECTED = {f"check_sample_weight_equivalence_on_{kind}_data": SHUFFLED for kind in ("dense", "sparse")}

SMALL = {"net": TinyF1, "max_epochs": 5, "lr": 0.03, "tol": None}
SLOW_CASES = {
    "default": {},
    "ghost batch norm": {**SMALL, "ghost_batch_size": 8},
    "switch": {**SMALL, "batch_regime": SwitchBatch(switch_epoch=5, first=8, then=0.5)},
    "LB": {**SMALL, "batch_regime": "LB", "lr_scaling": "sqrt", "regime_adaptation": True},
    "proximal": {**SMALL, "proximal_lambda": 1e-3},
    "whole": {**SMALL, "batch_size": -1, "max_epochs": 50},
    "micro batches": {**SMALL, "batch_size": 0.5, "micro_batch_size": 8, "max_epochs": 20},
    "seeded": {**SMALL, "random_state": 0},
}


def run_checks(estimator):
    """Run all checks and return what did not pass, array API aside, and how many ran."""
    with warnings.catch_warnings():
        # What scikit-learn's own checks do to an estimator is not a user's usage: batches may hold all of ten samples.
        warnings.simplefilter("ignore", ConvergenceWarning)
        results = check_estimator(estimator, on_fail=None, on_skip=None, expected_failed_checks=EXPECTED)
    reports = [
        f"{r['check_name']}: {r['status']}: {r['exception']!r}"
        for r in results
        if r["status"] not in ("passed", "xfail")
        and not (r["status"] == "skipped" and r["check_name"] in ARRAY_API_CHECKS)
    ]
    assert {r["check_name"] for r in results if r["expected_to_fail"]} <= EXPECTED.keys()
    return reports, len(results)


def test_small_f1_passes_every_check():
    reports, n_checks = run_checks(LBGapClassifier(**SMALL))
    assert reports == []
    assert n_checks >= FEWEST_CHECKS


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_CASES)
def test_default_net_and_regimes_pass_every_check(case):
    reports, n_checks = run_checks(LBGapClassifier(**SLOW_CASES[case]))
    assert reports == []
    assert n_checks >= FEWEST_CHECKS


class Double(nn.Module):
    """A net without batch norm that computes in float64; sizes from the data."""

    takes_images = False

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, n_classes)).double()

    def forward(self, X):
        return self.layers(X)


@pytest.mark.parametrize("params", [{}, {"micro_batch_size": 4}, {"class_weight": "balanced"}, {"remedies": ["sam"]}])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_whole_batches_pass_what_shuffled_ones_cannot(kind, params):
    model = LBGapClassifier(Double, batch_size=-1, max_epochs=15, tol=None, lr=0.01, **params)
    getattr(estimator_checks, f"check_sample_weight_equivalence_on_{kind}_data")("LBGapClassifier", model)


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_no_attributes_set_in_init",
        "check_set_params",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_valid_tag_types",
        "check_estimator_repr",
    ],
)
def test_nested_parameters_pass_the_checks_of_construction(check):
    estimator = LBGapClassifier(module__width=16, optimizer__weight_decay=1e-4)
    getattr(estimator_checks, check)("LBGapClassifier", clone(estimator))


def test_no_check_is_switched_off_by_a_tag():
    tags = LBGapClassifier().__sklearn_tags__()
    assert not tags._skip_test
    assert not tags.no_validation
    assert not tags.non_deterministic  # the tag means "even with a random_state"
    assert not tags.classifier_tags.poor_score
    assert tags.requires_fit
