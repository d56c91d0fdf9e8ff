"""`compare_regimes` interrupted, diverging, and asked for what it cannot do."""

import json
import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import LBGapClassifier
from tests.experiments.comparisons import DATA, X, Y, compare, figures
from tests.tiny import TinyF1, interrupting_at, small

# -- Ctrl-C and failures -----------------------------------------------------------------------------------------------


# In two epochs, 10 steps with batches of 10 rows and 2 with one of 50: the third fit's epochs begin with 13 and 18.
@pytest.mark.parametrize("step", [13, 19])
def test_ctrl_c_reports_what_had_finished(step):
    report = compare(small(net=interrupting_at(step)))
    assert report.interrupted
    assert [(r["trial"], r["regime"]) for r in report.records] == [(0, "10"), (0, "50")]
    assert figures(report) == figures(compare(small(net=TinyF1)))[:2]
    assert "Interrupted: 2 of 4 fits had finished and are reported." in str(report)
    assert json.loads(report.to_json(), parse_constant=pytest.fail)["interrupted"] is True


@pytest.mark.parametrize("step", [1, 7])
def test_ctrl_c_in_the_first_fit(step):
    with pytest.raises(KeyboardInterrupt):
        compare(small(net=interrupting_at(step)))


def test_a_regime_that_diverges_does_not_lose_the_others():
    regimes = {"SB": {"batch_regime": 10}, "LB": {"batch_regime": 50, "lr": float("1e30")}}
    report = compare(regimes=regimes, reference="SB")
    assert len(report.records) == 4
    assert figures(report)[0] == {**figures(compare(regimes={"SB": regimes["SB"]}, reference="SB"))[0]}
    lb = report.records[1]
    assert np.isnan(lb["sharpness_0.001"])
    assert not lb["converged"]
    assert "LB" in " ".join(report.warnings())
    json.loads(report.to_json(), parse_constant=pytest.fail)
    str(report)


# -- bad input: found before anything is trained -----------------------------------------------------------------------


@pytest.fixture
def _no_training(monkeypatch):
    def fit(self, *args):
        pytest.fail("trained before the error was found")

    monkeypatch.setattr(LBGapClassifier, "fit", fit)


BAD = {
    "regimes: a string": ({"regimes": "SB"}, "regimes must be a sequence of batch regimes or a dict .*; got 'SB'"),
    "regimes: none": ({"regimes": ()}, r"regimes must be a sequence .*; got \(\)"),
    "regimes: a number": ({"regimes": 5}, "regimes must be a sequence .*; got 5"),
    "overrides: no dict": ({"regimes": {"10": 10}}, r"regimes\['10'\] must be a dict of parameters; got 10"),
    "reference": ({"reference": "SB"}, "reference must be one of the regimes, 10, 50; got 'SB'"),
    "n_trials 0": ({"n_trials": 0}, "n_trials must be an integer of at least 1; got 0"),
    "n_trials True": ({"n_trials": True}, "n_trials must be an integer of at least 1; got True"),
    "n_trials 2.5": ({"n_trials": 2.5}, "n_trials must be an integer of at least 1; got 2.5"),
    "batch_norm": ({"batch_norm": "train"}, "batch_norm must be one of 'batch', 'population', 'running'; got 'train'"),
    "solver": ({"solver": "best"}, "solver must be one of .*; got 'best'"),
    "epsilon 0": ({"epsilons": [0]}, r"epsilon must be a number above 0, .*; got \[0\]"),
    "epsilon text": ({"epsilons": ["big"]}, "epsilon must be a number above 0"),
    "max_samples 0": ({"max_samples": 0}, "max_samples must be None or an integer of at least 1; got 0"),
    "max_samples True": ({"max_samples": True}, "max_samples must be None or .*; got True"),
    "subspace_dims 0": ({"subspace_dims": [0]}, "subspace_dim.* must be .*; got "),
    "subspace_dims of nothing": ({"subspace_dims": ()}, r"subspace_dims must be .* not empty; got \(\)"),
    "subspace_dims True": ({"subspace_dims": [True]}, "subspace_dim.* must be .*; got "),
    "misspelt": (
        {"regimes": {"10": {}, "LB": {"proximal_lamda": 1}}},
        "no parameter 'proximal_lamda'; did you mean 'proximal_lambda'",
    ),
    "misspelt and nested": ({"regimes": {"10": {}, "LB": {"modul__width": 1}}}, "no parameter 'modul__width'"),
    "unknown regime": ({"regimes": ("10", "XL")}, "batch_regime must be .*; got"),
    "regime out of range": ({"regimes": ("SB", -3), "reference": "SB"}, "batch.* must be .*; got -3"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.usefixtures("_no_training")
def test_bad_values(case):
    kwargs, sentence = BAD[case]
    with pytest.raises(ValueError, match=sentence):
        compare(**kwargs)


@pytest.mark.parametrize("kwargs", [{"epsilons": 1e-3}, {"subspace_dims": 100}, {"subspace_dims": "all"}], ids=str)
@pytest.mark.usefixtures("_no_training")
def test_a_value_where_a_sequence_belongs(kwargs):
    (name,) = kwargs
    with pytest.raises((ValueError, TypeError), match=name.removesuffix("s")):
        compare(**kwargs)


@pytest.mark.usefixtures("_no_training")
def test_misspelt_override_of_a_pipeline():
    with pytest.raises(ValueError, match="proximal_lamda"):
        compare(make_pipeline(StandardScaler(), small()), regimes={"10": {"proximal_lamda": 1}})


@pytest.mark.usefixtures("_no_training")
def test_unequal_lengths():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        compare(data=(X[:10], Y[:9], X, Y))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        compare(data=(X, Y, X[:10], Y[:9]))


BAD_TEST_DATA = {
    "label": (X[50:], Y[50:] + 7, r"y_test must have labels that y has; got \[7 8 9\] beside them\."),
    "columns": (X[50:, :3], Y[50:], r"X_test must have rows like those of X, \(4,\); got \(3,\)\."),
}


@pytest.mark.parametrize("case", BAD_TEST_DATA)
@pytest.mark.usefixtures("_no_training")
def test_bad_test_data(case):
    X_test, y_test, sentence = BAD_TEST_DATA[case]
    with pytest.raises(ValueError, match=sentence):
        compare(data=(*DATA[:2], X_test, y_test))


def test_test_data_that_are_not_finite():
    with pytest.raises(ValueError, match="NaN"):
        compare(data=(*DATA[:2], X[50:] * np.nan, Y[50:]))


def test_a_wrong_parameter_of_the_estimator_is_a_sentence():
    with pytest.raises(ValueError, match=re.escape("max_epochs must be")):
        compare(clone(small()).set_params(max_epochs=-1))


def test_memory_loses_no_finished_work(tmp_path, monkeypatch):
    from sklgap.experiments import _trials

    plain = compare()
    calls = []

    def measure(*args):
        if len(calls) == 2:
            raise MemoryError
        calls.append(1)
        return real(*args)

    real = _trials._measure
    monkeypatch.setattr(_trials, "_measure", measure)
    with pytest.raises(MemoryError):
        compare(memory=tmp_path)
    assert sorted(path.suffix for path in tmp_path.glob("*.*")) == [".fit"] * 3 + [".trial"] * 2
    calls.clear()
    assert figures(compare(memory=tmp_path)) == figures(plain)
    assert len(calls) == 2
    monkeypatch.setattr(_trials, "_measure", None)
    again = compare(memory=tmp_path)
    assert figures(again) == figures(plain)
    assert again.records[0]["fit_seconds"] > 0
    np.testing.assert_array_equal(again.estimators_["50"][1].predict(X), plain.estimators_["50"][1].predict(X))


def test_memory_tells_what_is_measured_apart(tmp_path):
    one = compare(memory=tmp_path)
    other = compare(memory=tmp_path, batch_norm="running", epsilons=[1e-2])
    assert "sharpness_0.01" in other.records[0]
    assert "sharpness_0.001" in one.records[0]
    assert len(list(tmp_path.glob("*.fit"))) == 4
    assert len(list(tmp_path.glob("*.trial"))) == 8


def test_memory_needs_a_random_state(tmp_path):
    with pytest.raises(ValueError, match="memory must be None while random_state is None"):
        compare(memory=tmp_path, random_state=None)
