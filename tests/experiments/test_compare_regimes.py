import json

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap import SwitchBatch, sharpness
from sklgap.experiments import RegimeComparison
from sklgap.objective import Objective
from tests.cases import no_global_random_numbers
from tests.experiments.comparisons import DATA, X, compare, figures
from tests.tiny import small


def _start(model):
    return model.net_.module_start_


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def report():
    return compare(n_trials=3, epsilons=[1e-3, 1e-2], subspace_dims=[None, 3])


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
        report = compare(small(batch_size=batch_size), regimes=("SB", "LB"), reference="SB", n_trials=1)
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
    report = compare(regimes=regimes, reference="SB", n_trials=1)
    assert report.labels == list(regimes)
    models = {label: models[0] for label, models in report.estimators_.items()}
    assert [models[label].proximal_lambda for label in regimes] == [None, None, 0.1, None]
    assert models["LB, narrow"].module_.layers[1].out_features == 4
    assert report.records[2]["n_updates"] == 3 * report.records[1]["n_updates"]
    assert [gap.regime for gap in report.gaps()] == ["LB", "LB + proximal", "LB, narrow"]


def test_regimes_as_objects_and_fractions():
    switch = SwitchBatch(switch_epoch=1, first=10, then=50)
    report = compare(regimes=(10, 0.5, switch), n_trials=1)
    assert report.labels == ["10", "0.5", str(switch)]
    # Two epochs; the last one's size.
    assert [record["batch_size"] for record in report.records] == [10, 25, 50]


def test_a_stopping_rule_says_whether_it_ended_the_training():
    (record,) = compare(small(target_loss=100.0), regimes=(10,), n_trials=1).records
    assert (record["converged"], record["n_epochs"]) == (True, 1)


def test_the_label_of_a_number_is_its_text():
    assert figures(compare(n_trials=1, reference=10)) == figures(compare(n_trials=1))


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
    assert figures(compare(data=data, n_trials=1)) == figures(compare(n_trials=1))


def test_the_estimator_is_not_changed():
    model = small(remedies=())
    before = repr(model.get_params())
    compare(model, n_trials=1)
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
            expected = sharpness(model, *DATA[:2], epsilon=[1e-3, 1e-2], subspace_dim=dim, random_state=record["seed"])
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
    expected = sharpness(objective, random_state=record["seed"]).value
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
    report = compare(n_trials=1, solver="power")
    model, record = report.estimators_["10"][0], report.records[0]
    expected = sharpness(model, *DATA[:2], solver="power").value
    assert record["sharpness_0.001"] == pytest.approx(expected, rel=1e-9)
    none = compare(n_trials=1, epsilons=[])
    assert not [key for key in none.records[0] if key.startswith("sharpness")]
    assert "sharpness" not in str(none)


def test_statistics_of_real_trials(report):
    (gap,) = report.gaps()
    one, other = (report.values(label, "test_accuracy") for label in ("10", "50"))
    interval = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (gap.mean, gap.low, gap.high) == pytest.approx((np.mean(one - other), *interval), abs=1e-12)
    json.loads(report.to_json(), parse_constant=pytest.fail)


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
        first, second = (compare(n_trials=1, random_state=None) for _ in range(2))
    assert first.records[0]["seed"] != second.records[0]["seed"]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(report):
    parallel = compare(n_trials=3, epsilons=[1e-3, 1e-2], subspace_dims=[None, 3], n_jobs=2)
    assert figures(parallel) == figures(report)
    for label, models in parallel.estimators_.items():
        for one, other in zip(models, report.estimators_[label], strict=True):
            assert _equal(one.module_.state_dict(), other.module_.state_dict())


def test_verbose(capsys):
    compare(n_trials=1)
    assert capsys.readouterr() == ("", "")
    compare(n_trials=1, verbose=1)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "test accuracy" in shown
