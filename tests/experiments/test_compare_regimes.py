import json
import re
import signal

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import fbeta_score, make_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap import LBGapClassifier, SwitchBatch, sharpness
from sklgap.experiments import Measurement, RegimeComparison, _trials
from sklgap.experiments._estimate import NEW_SEEDS_AND_ROWS, crossed_components
from sklgap.objective import Objective
from tests.cases import no_global_random_numbers
from tests.experiments.comparisons import DATA, QUICK, X, Y, compare, figures
from tests.tiny import TinyF1, interrupting_at, small


def _start(model):
    return model.net_.module_start_


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def report():
    return compare(n_trials=3, epsilon=[1e-3, 1e-2], subspace_dims=[None, 3])


# -- what is trained ---------------------------------------------------------------------------------------------------


def test_one_fit_for_every_regime_and_trial(report):
    assert isinstance(report, RegimeComparison)
    assert [(r["trial"], r["regime"]) for r in report.records] == [(t, size) for t in range(3) for size in ("10", "50")]
    assert report.labels == ["10", "50"]
    assert {label: len(models) for label, models in report.estimators_.items()} == {"10": 3, "50": 3}
    assert [record["batch_size"] for record in report.records] == [10, 50] * 3
    assert [record["n_updates"] for record in report.records] == [2 * 5, 2 * 1] * 3


def test_paired_trials_start_from_the_same_weights(report):
    for one, other in zip(report.estimators_["10"], report.estimators_["50"], strict=True):
        assert _equal(_start(one), _start(other))
        assert not _equal(dict(one.module_.named_parameters()), dict(other.module_.named_parameters()))
    first, second, third = (_start(model) for model in report.estimators_["10"])
    assert not _equal(first, second)
    assert not _equal(second, third)
    seeds = [record["seed"] for record in report.records]
    assert seeds[::2] == seeds[1::2]
    assert len(set(seeds)) == 3


def test_the_names_of_the_paper():
    for batch_size in (None, 25):  # the estimator's own overrides no regime
        report = compare(small(batch_size=batch_size), regimes=("SB", "LB"), reference="SB", **QUICK)
        assert report.labels == ["SB", "LB"]
        # Fewer than 10,240 samples: n // 40, at least 8; and 10 %.
        assert [record["batch_size"] for record in report.records] == [8, 5]


def test_a_dict_of_remedies():
    regimes = {
        "SB": {"batch_regime": 10},
        "LB": {"batch_regime": 50},
        "LB + proximal": {"batch_regime": 50, "proximal_lambda": 0.1},
        "LB, narrow": {"batch_regime": 50, "module__width": 4},
    }
    report = compare(regimes=regimes, reference="SB", **QUICK)
    assert report.labels == list(regimes)
    models = {label: models[0] for label, models in report.estimators_.items()}
    assert [models[label].proximal_lambda for label in regimes] == [None, None, 0.1, None]
    assert models["LB, narrow"].module_.layers[1].out_features == 4
    assert report.records[2]["n_updates"] == 3 * report.records[1]["n_updates"]
    assert list(report.gaps()) == ["LB", "LB + proximal", "LB, narrow"]


def test_regimes_as_objects_and_fractions():
    switch = SwitchBatch(switch_epoch=1, first=10, then=50)
    report = compare(regimes=(10, 0.5, switch), **QUICK)
    assert report.labels == ["10", "0.5", str(switch)]
    # Two epochs; the last one's size.
    assert [record["batch_size"] for record in report.records] == [10, 25, 50]


def test_a_stopping_rule_says_whether_it_ended_the_training():
    (record,) = compare(small(target_loss=100.0), regimes=(10,), **QUICK).records
    assert (record["converged"], record["n_epochs"]) == (True, 1)


def test_the_label_of_a_number_is_its_text():
    assert figures(compare(reference=10, **QUICK)) == figures(compare(**QUICK))
    assert compare(reference=10, **QUICK).estimators_[10] is not None


def test_a_pipeline():
    model = make_pipeline(StandardScaler(), small())
    report = compare(model, n_trials=1)
    scaler = StandardScaler().fit(DATA[0])
    scaled = (scaler.transform(DATA[0]), DATA[1], scaler.transform(DATA[2]), DATA[3])
    assert figures(report) == figures(compare(data=scaled, n_trials=1))
    fitted = report.estimators_["50"][0]
    assert fitted[-1].batch_regime == 50
    assert fitted.score(*DATA[2:]) > 0


def test_lists_and_pandas():
    pd = pytest.importorskip("pandas")
    expected = figures(compare(n_trials=1, max_samples=20))
    lists = [part.tolist() for part in DATA]
    assert figures(compare(data=lists, n_trials=1, max_samples=20)) == expected
    frames = [pd.DataFrame(p) if p.ndim == 2 else pd.Series(p, index=np.arange(len(p))[::-1]) for p in DATA]
    for frame in frames[::2]:
        frame.columns = list("abcd")
    assert figures(compare(data=frames, n_trials=1, max_samples=20)) == expected


def test_labels_that_are_strings():
    names = np.array(["no", "perhaps", "yes"])
    data = (DATA[0], names[DATA[1]], DATA[2], names[DATA[3]])
    assert figures(compare(data=data, **QUICK)) == figures(compare(**QUICK))


def test_the_estimator_is_not_changed():
    model = small(remedies=())
    before = repr(model.get_params())
    compare(model, **QUICK)
    assert repr(model.get_params()) == before
    assert not hasattr(model, "net_")
    with pytest.raises(NotFittedError):
        model.predict(X)


# -- what is measured --------------------------------------------------------------------------------------------------


def test_every_figure_of_a_record(report):
    for record, model in zip(
        report.records, [m for pair in zip(*report.estimators_.values(), strict=True) for m in pair], strict=True
    ):
        for name, rows, labels in (("train", *DATA[:2]), ("test", *DATA[2:])):
            objective = Objective(model.module_, nn.CrossEntropyLoss(), (rows, torch.from_numpy(labels)))
            assert (record[f"{name}_loss"], record[f"{name}_accuracy"]) == objective.evaluate()
        distance = sum((p - _start(model)[name]).square().sum().item() for name, p in model.module_.named_parameters())
        assert record["weight_distance"] == pytest.approx(distance**0.5, rel=1e-5)
        assert (record["n_epochs"], record["n_updates"]) == (model.n_iter_, model.n_updates_)
        assert record["converged"] is None  # tol=None: there is no stopping rule
        assert min(record["fit_seconds"], record["measure_seconds"]) > 0
        for dim in (None, 3):
            expected = sharpness(
                model, *DATA[:2], epsilon=[1e-3, 1e-2], subspace_dim=dim, solver="power", random_state=record["seed"]
            )
            for one in expected:
                key = f"sharpness_{one.epsilon:g}" + ("" if dim is None else f"_dim{dim}")
                assert record[key] == pytest.approx(one.value, rel=1e-9)


@pytest.mark.parametrize("policy", ["population", "running"])
def test_one_policy_for_all_figures(policy):
    report = compare(n_trials=1, batch_norm=policy)
    record, model = report.records[1], report.estimators_["50"][0]
    rows = (DATA[0], torch.from_numpy(DATA[1]))
    objective = Objective(model.module_, nn.CrossEntropyLoss(), rows, batch_norm=policy)
    assert record["train_loss"] == objective.value()
    expected = sharpness(objective, solver="power", random_state=record["seed"]).value
    assert record["sharpness_0.001"] == pytest.approx(expected, rel=1e-9)
    assert f"batch_norm='{policy}'" in str(report)


def test_sharpness_is_measured_on_the_same_rows_in_all_trials():
    seen = []
    original = sharpness

    def spy(objective, **kwargs):
        seen.append(torch.cat([chunk.X for chunk in objective.data]))
        return original(objective, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sklgap.experiments._trials.sharpness", spy)
        report = compare(max_samples=20)
        compare(max_samples=20, random_state=1)
    assert report.settings["n_samples_sharpness"] == 20
    assert "on 20 training samples" in str(report)
    assert [rows.shape for rows in seen] == [(20, 4)] * 8
    assert all(torch.equal(rows, seen[0]) for rows in seen[:4])
    assert not torch.equal(seen[0], seen[4])


def test_solver_and_no_sharpness():
    report = compare(n_trials=1, solver="lbfgsb")
    model, record = report.estimators_["10"][0], report.records[0]
    expected = sharpness(model, *DATA[:2], solver="lbfgsb").value
    assert record["sharpness_0.001"] == pytest.approx(expected, rel=1e-9)
    none = compare(**QUICK)
    assert not [key for key in none.records[0] if key.startswith("sharpness")]
    assert "sharpness" not in str(none)


def test_which_samples_are_right(report):
    """Kept in the order of the test samples, so that a difference covers new ones."""
    for label in ("10", "50"):
        for trial, model in enumerate(report.estimators_[label]):
            objective = Objective(model.module_, nn.CrossEntropyLoss(), (DATA[2], torch.from_numpy(DATA[3])))
            right = report.samples_of(label, trial).values
            np.testing.assert_array_equal(right, objective.evaluate_samples()[1])
            assert right.mean() == report.values(label, "test_accuracy")[trial]
    right = [[report.samples_of(label, t).values for t in range(3)] for label in ("10", "50")]
    expected = crossed_components(np.array(right[0], dtype=float) - np.array(right[1], dtype=float))
    assert report.components(10, 50) == expected
    assert report.gap(50) == expected.estimate()
    assert report.gap(50).covers == NEW_SEEDS_AND_ROWS
    content = json.loads(report.to_json(samples=True), parse_constant=pytest.fail)
    assert content["gaps"][0]["components"]["n_rows"] == len(DATA[3])
    assert len(content["samples"]) == 6


# -- random numbers and processes --------------------------------------------------------------------------------------


def test_repeatable_from_random_state():
    with torch.random.fork_rng(devices=[]), no_global_random_numbers():
        first = figures(compare(subspace_dims=[3]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert figures(compare(subspace_dims=[3])) == first
    assert figures(compare(subspace_dims=[3], random_state=np.random.RandomState(0))) == first
    assert figures(compare(subspace_dims=[3], random_state=1)) != first


def test_no_random_state_leaves_the_global_generators_alone():
    with no_global_random_numbers():
        first, second = (compare(random_state=None, **QUICK) for _ in range(2))
    assert first.records[0]["seed"] != second.records[0]["seed"]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(report):
    parallel = compare(n_trials=3, epsilon=[1e-3, 1e-2], subspace_dims=[None, 3], n_jobs=2)
    assert figures(parallel) == figures(report)
    for label, models in parallel.estimators_.items():
        for one, other in zip(models, report.estimators_[label], strict=True):
            assert _equal(one.module_.state_dict(), other.module_.state_dict())


def test_verbose(capsys):
    compare(**QUICK)
    assert capsys.readouterr() == ("", "")
    report = compare(verbose=1, **QUICK)
    out, err = capsys.readouterr()
    assert "cost: 2 fits" in out
    assert report.settings["cost"]["n_fits"] == [1, 1]
    assert "2/2" in err
    assert "test accuracy" in err


# -- Ctrl-C and failures -----------------------------------------------------------------------------------------------


# In two epochs, 10 steps with batches of 10 rows and 2 with one of 50: the third fit's epochs begin with 13 and 18.
@pytest.mark.parametrize("step", [13, 19])
def test_ctrl_c_reports_what_had_finished(step):
    report = compare(small(net=interrupting_at(step)), epsilon=[])
    assert report.interrupted
    assert [(r["trial"], r["regime"]) for r in report.records] == [(0, "10"), (0, "50")]
    assert figures(report) == figures(compare(small(net=TinyF1), epsilon=[]))[:2]
    assert [note for note in report.notes if "Interrupted" in note and "2 of 4 fits" in note]
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
    assert any("LB" in note and "diverged" in note for note in report.notes)
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
    "epsilon 0": ({"epsilon": [0]}, r"epsilon must be a number above 0 .*; got \[0\]"),
    "epsilon text": ({"epsilon": ["big"]}, "epsilon must be a number above 0"),
    "max_samples 0": ({"max_samples": 0}, "max_samples must be .*; got 0"),
    "max_samples True": ({"max_samples": True}, "max_samples must be .*; got True"),
    "subspace_dims 0": ({"subspace_dims": [0]}, "subspace_dim.* must be .*; got "),
    "subspace_dims of nothing": ({"subspace_dims": ()}, r"subspace_dims must be a non-empty .*; got \(\)"),
    "subspace_dims True": ({"subspace_dims": [True]}, "subspace_dim.* must be .*; got "),
    "misspelt": (
        {"regimes": {"10": {}, "LB": {"proximal_lamda": 1}}},
        "no parameter 'proximal_lamda'; did you mean 'proximal_lambda'",
    ),
    "misspelt and nested": ({"regimes": {"10": {}, "LB": {"modul__width": 1}}}, "no parameter 'modul__width'"),
    "scoring": ({"scoring": "precision at noon"}, "scoring must be the name of .*; got 'precision at noon'"),
    "scoring of other labels": (
        {"scoring": "f1", "data": (X, np.array(list("abc"))[Y], X, np.array(list("abc"))[Y])},
        "scoring must be defined for these labels; f1",
    ),
    "measurement": (
        {"measurement": "all", "epsilon": (1e-3, 5e-4)},
        "measurement must be None or a Measurement; got 'all'",
    ),
    "measurement beside": (
        {"measurement": Measurement(), "solver": "power"},
        "measurement must be None if .*solver",
    ),
    "unknown regime": ({"regimes": ("10", "XL")}, "batch_regime must be .*; got"),
    "regime out of range": ({"regimes": ("SB", -3), "reference": "SB"}, "batch.* must be .*; got -3"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.usefixtures("_no_training")
def test_bad_values_are_found_before_training(case):
    kwargs, sentence = BAD[case]
    with pytest.raises(ValueError, match=sentence):
        compare(**kwargs)


@pytest.mark.parametrize("kwargs", [{"epsilon": "small"}, {"subspace_dims": 100}, {"subspace_dims": "all"}], ids=str)
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
    "label": (X[50:], Y[50:] + 7, r"y_test must not have labels that y does not have; got \[7 8 9\]\."),
    "columns": (X[50:, :3], Y[50:], r"X_test must have samples of the same shape as X, \(4,\); got \(3,\)\."),
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
    plain = compare()
    calls = []

    def measure(*args):
        if len(calls) == 2:
            raise MemoryError
        calls.append(1)
        return real(*args)

    real = _trials.measure
    monkeypatch.setattr(_trials, "measure", measure)
    with pytest.raises(MemoryError):
        compare(memory=tmp_path)
    assert sorted(path.suffix for path in tmp_path.glob("*.*")) == [".fit"] * 3 + [".trial"] * 2
    calls.clear()
    assert figures(compare(memory=tmp_path)) == figures(plain)
    assert len(calls) == 2
    monkeypatch.setattr(_trials, "measure", None)
    again = compare(memory=tmp_path)
    assert figures(again) == figures(plain)
    assert again.records[0]["fit_seconds"] > 0
    np.testing.assert_array_equal(again.estimators_["50"][1].predict(X), plain.estimators_["50"][1].predict(X))


def test_an_interrupted_comparison_goes_on(tmp_path, monkeypatch):
    """What had finished is loaded, and what had not comes to the same."""
    plain = figures(compare(epsilon=[]))
    calls, real = [], _trials.measure

    def measure(*args):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(*args)

    monkeypatch.setattr(_trials, "measure", measure)
    interrupted = compare(epsilon=[], memory=tmp_path)
    assert interrupted.interrupted
    assert figures(interrupted) == plain[:2]
    assert figures(compare(epsilon=[], memory=tmp_path)) == plain
    assert len(calls) == 5  # the fits that had finished are not measured again


def test_memory_tells_scorers_of_one_name_apart(tmp_path):
    """The name is the same, what it computes is not."""
    scorers = [make_scorer(fbeta_score, beta=beta, average="macro") for beta in (0.1, 10)]
    found = [compare(memory=tmp_path, scoring={"f": scorer}, **QUICK) for scorer in scorers]
    expected = [compare(scoring={"f": scorer}, **QUICK) for scorer in scorers]
    assert list(map(figures, found)) == list(map(figures, expected))
    assert figures(found[0]) != figures(found[1])
    assert len(list(tmp_path.glob("*.fit"))) == 2
    again = compare(memory=tmp_path, scoring={"f": scorers[0]}, **QUICK)
    np.testing.assert_array_equal(again.samples_of(50, 0, "test_f").values, found[0].samples_of(50, 0, "test_f").values)
    assert again.samples_of(50, 0, "test_f").method == "predict"


def test_memory_tells_what_is_measured_apart(tmp_path):
    one = compare(memory=tmp_path)
    other = compare(memory=tmp_path, batch_norm="running", epsilon=[1e-2])
    assert "sharpness_0.01" in other.records[0]
    assert "sharpness_0.001" in one.records[0]
    assert len(list(tmp_path.glob("*.fit"))) == 4
    assert len(list(tmp_path.glob("*.trial"))) == 8


def test_memory_needs_a_random_state(tmp_path):
    with pytest.raises(ValueError, match="memory must be None while random_state is None"):
        compare(memory=tmp_path, random_state=None)
