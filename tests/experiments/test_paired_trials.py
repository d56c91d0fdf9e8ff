"""What compare_regimes, explain_gap and minima_census share; their own tests hold the rest."""

import pytest

from sklgap.experiments import Measurement
from sklgap.experiments._paired_trials import run_paired_trials
from tests.experiments.comparisons import DATA
from tests.tiny import interrupting_at, small

ARMS = {"ten": {"batch_size": 10}, "fifty": {"batch_size": 50}}


def paired(estimator=None, arms=ARMS, **kwargs):
    given = {"n_trials": 2, "random_state": 0, "n_jobs": None, "memory": None, "verbose": 0}
    estimator = small() if estimator is None else estimator
    return run_paired_trials(estimator, arms, DATA, Measurement(epsilon=()), **{**given, **kwargs})


def test_in_a_trial_all_start_from_one_seed():
    found = paired()
    records = [outcome.record for outcome in found.outcomes]
    assert [(r["regime"], r["trial"]) for r in records] == [("ten", 0), ("fifty", 0), ("ten", 1), ("fifty", 1)]
    seeds = [r["seed"] for r in records]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]
    assert found.settings["n_trials"] == 2
    assert found.targets.keys() == {"test", "classes"}
    assert not found.interrupted


def test_models_that_are_not_returned():
    assert [o.model for o in paired(keep_estimators=False, n_trials=1).outcomes] == [None, None]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"arms": {"ten": {"batch_size": 10}, "other": {"nonsense": 1}}}, "nonsense"),
        ({"memory": "folder", "random_state": None}, "memory must be None"),
        ({"n_trials": 0}, "n_trials must be"),
    ],
)
def test_refused_before_training(given, words):
    with pytest.raises(ValueError, match=words):
        paired(small(net=interrupting_at(1)), **given)


def test_nothing_had_finished():
    with pytest.raises(KeyboardInterrupt):
        paired(small(net=interrupting_at(1)))


def test_the_cost_is_said_and_saved(capsys):
    found = paired(verbose=1, n_trials=1)
    assert "cost: 2 fits" in capsys.readouterr().out
    assert found.settings["cost"]["labels"] == list(ARMS)
