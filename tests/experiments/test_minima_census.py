import json
import math
import re
import threading

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap import LBGapClassifier, check_objective, compare_regimes, minima_census, sharpness
from sklgap.experiments import Measurement, MinimaCensus
from sklgap.experiments._estimate import NEW_SEEDS, NEW_SEEDS_AND_ROWS, crossed_components, rank_correlation
from sklgap.training import TrainingNet
from tests.cases import no_global_random_numbers
from tests.experiments.experiments import (
    GROUPS,
    LB_ACCURACIES,
    LB_SHARPNESS,
    census,
    census_record,
    leaves,
    said,
)
from tests.tiny import Mlp, TinyF1, blobs, interrupting_at, small

X, Y = blobs(75)
DATA = (X[:50], Y[:50], X[50:], Y[50:])
OF_REAL = [("10", "glorot_uniform"), ("10", "torch"), ("50", "glorot_uniform"), ("50", "torch")]
ALL = [(group, trial) for group in GROUPS for trial in range(6)]
SCORES = {"accuracy": "accuracy", "balanced": "balanced_accuracy"}


def count(estimator=None, data=DATA, **kwargs):
    defaults = {"regimes": (10, 50), "n_trials": 1, "random_state": 0, "verbose": 0}
    if "measurement" not in kwargs:
        defaults |= {"solver": "power", "max_samples": 10}
    return minima_census(small() if estimator is None else estimator, *data, **{**defaults, **kwargs})


def _figures(census):
    return [{k: v for k, v in record.items() if not k.endswith("_seconds")} for record in census.records]


@pytest.fixture(scope="module")
def real():
    return count(n_trials=2, max_samples=None, scoring=SCORES)


# -- what is trained ---------------------------------------------------------------------------------------------------


def test_every_minimum_is_what_a_separate_training_gives(real):
    assert isinstance(real, MinimaCensus)
    assert real.groups == OF_REAL
    assert [(r["trial"], r["regime"], r["init"]) for r in real.records] == [(i, *g) for i in (0, 1) for g in OF_REAL]
    for record in real.records[:4]:
        seed = record["seed"]
        model = small(batch_size=int(record["regime"]), init=record["init"], random_state=seed).fit(*DATA[:2])
        for name, rows in (("train", DATA[:2]), ("test", DATA[2:])):
            assert (record[f"{name}_loss"], record[f"{name}_accuracy"]) == check_objective(model, *rows).evaluate()
        assert record["test_balanced"] == pytest.approx(balanced_accuracy_score(DATA[3], model.predict(DATA[2])))
        expected = sharpness(model, *DATA[:2], solver="power", random_state=seed).value
        assert record["sharpness_0.001"] == pytest.approx(expected, rel=1e-9)
    assert len({r["seed"] for r in real.records}) == 2
    assert len({r["train_loss"] for r in real.records}) == 8


def test_one_init_is_a_comparison():
    how = {"regimes": (10, 50), "n_trials": 1, "epsilon": 1e-3, "solver": "power", "random_state": 0, "verbose": 0}
    report = compare_regimes(small(), *DATA, reference="10", **how)
    found = count(inits=["glorot_uniform"])
    for label in ("10", "50"):
        values = found.values((label, "glorot_uniform"), "train_loss")
        np.testing.assert_array_equal(values, report.values(label, "train_loss"))


def test_target_loss_ends_the_training_and_nothing_else_does():
    estimator = small(max_epochs=30, tol=0.9, n_iter_no_change=1)
    (record,) = count(estimator, target_loss=0.6, inits=["torch"], regimes=(10,)).records
    assert record["converged"]
    alone = small(max_epochs=30, target_loss=0.6, batch_size=10, init="torch", random_state=record["seed"])
    assert record["n_epochs"] == alone.fit(*DATA[:2]).n_iter_ > 2
    missed = count(target_loss=1e-9, inits=["torch"], regimes=(10,))
    assert said(missed, "10, torch", "target loss", "1 of 1")


def _constant(module):
    for p in module.parameters():
        nn.init.constant_(p, 0.1)


def test_inits_as_functions_and_by_name():
    found = count(inits=["torch", _constant])
    assert found.groups[1] == ("10", "_constant")
    named = count(inits={"t": "torch", "0.1": _constant})
    assert named.groups[:2] == [("10", "t"), ("10", "0.1")]
    np.testing.assert_array_equal([r["train_loss"] for r in found.records], [r["train_loss"] for r in named.records])


def test_a_pipeline():
    found = count(make_pipeline(StandardScaler(), small()), inits=["torch"])
    scaler = StandardScaler().fit(DATA[0])
    data = (scaler.transform(DATA[0]), DATA[1], scaler.transform(DATA[2]), DATA[3])
    assert _figures(found) == _figures(count(data=data, inits=["torch"]))


def test_repeatable_from_random_state(real):
    with torch.random.fork_rng(devices=[]), no_global_random_numbers():
        first = _figures(count(inits=["torch"]))
    assert _figures(count(inits=["torch"])) == first
    assert _figures(count(inits=["torch"], random_state=1)) != first


@pytest.mark.slow
def test_two_processes_find_what_one_finds(real):
    assert _figures(count(n_trials=2, max_samples=None, scoring=SCORES, n_jobs=2)) == _figures(real)


def test_the_cost_is_told_first(capsys):
    found = count(inits=["torch"], verbose=1)
    shown = capsys.readouterr()
    assert "cost: 2 fits, at most 12 updates" in shown.out
    assert "2/2" in shown.err
    assert found.settings["cost"]["labels"] == ["10, torch", "50, torch"]


# -- learning rates and measures ---------------------------------------------------------------------------------------


def _norm(objective):
    return float(objective.theta0.norm())


def _seed(objective, *, random_state):
    return float(random_state)


def test_every_rate_is_what_a_separate_training_with_it_gives():
    found = count(inits=["torch"], learning_rates=[0.01, 0.1], regimes=(10, 50))
    assert found.groups == [(size, "torch", rate) for size in ("10", "50") for rate in ("0.01", "0.1")]
    assert [(r["regime"], r["learning_rate"]) for r in found.records] == [
        *[("10", 0.01), ("10", 0.1)],
        *[("50", 0.01), ("50", 0.1)],
    ]
    for record in found.records:
        how = {"batch_size": int(record["regime"]), "init": "torch", "lr": record["learning_rate"]}
        model = small(random_state=record["seed"], **how).fit(*DATA[:2])
        assert (record["test_loss"], record["test_accuracy"]) == check_objective(model, *DATA[2:]).evaluate()
    assert len({record["seed"] for record in found.records}) == 1
    assert found.values(("50", "torch", "0.1"), "test_loss") == found.values("50, torch, 0.1", "test_loss")
    assert "learning rate" in str(found)
    leaves(found)


def test_the_estimator_s_own_rate_among_others_changes_nothing(real):
    own = count(n_trials=2, max_samples=None, scoring=SCORES, learning_rates=[0.02, small().lr])
    assert own.groups[1] == ("10", "glorot_uniform", str(small().lr))
    for group in real.groups:
        for name in ("train_loss", "test_accuracy", "sharpness_0.001", "seed"):
            expected = real.values(group, name)
            np.testing.assert_array_equal(own.values((*group, str(small().lr)), name), expected)


def test_one_rate_is_no_part_of_the_groups():
    found = count(inits=["torch"], learning_rates=[0.05])
    assert found.groups == [("10", "torch"), ("50", "torch")]
    assert [record["learning_rate"] for record in found.records] == [0.05, 0.05]
    assert "learning_rate" not in count(inits=["torch"], regimes=(50,)).records[0]


def test_contrasts_differ_in_one_thing():
    found = count(learning_rates=[0.01, 0.1])
    pairs = [(c.first, c.second) for c in found.contrasts()]
    differing = [[i for i in range(3) if one[i] != other[i]] for one, other in pairs]
    assert differing == [[0]] * 4 + [[1]] * 4 + [[2]] * 4


def test_measures_stand_in_the_records():
    measures = {"norm": _norm, "seeds": _seed, "top": "largest_eigenvalue"}
    found = count(inits=["torch"], measures=measures, n_trials=2)
    assert found.measures == ["norm", "seeds", "top"]
    for record in found.records:
        model = small(batch_size=int(record["regime"]), init="torch", random_state=record["seed"]).fit(*DATA[:2])
        theta = torch.cat([p.detach().ravel() for p in model.module_.parameters()])
        assert record["norm"] == pytest.approx(float(theta.norm()))
        assert record["seeds"] == record["seed"]
        assert record["top"] > 0
    header = str(found)
    assert all(name in header for name in measures)
    assert "rank_measures" in header
    plain = count(inits=["torch"], n_trials=2)
    for one, other in zip(_figures(plain), _figures(found), strict=True):
        assert {key: other[key] for key in one} == one  # measures change nothing else
    leaves(found)


def test_measures_see_the_samples_of_the_sharpness():
    sizes = {
        n: count(inits=["torch"], regimes=(50,), max_samples=n, measures={"n": lambda f: f.n_samples}) for n in (7, 10)
    }
    assert {n: found.records[0]["n"] for n, found in sizes.items()} == {7: 7.0, 10: 10.0}
    whole = count(inits=["torch"], regimes=(50,), max_samples=None, measures={"n": lambda f: f.n_samples})
    assert whole.records[0]["n"] == 50


@pytest.mark.filterwarnings("ignore:overflow")
def test_measures_of_a_diverged_fit_are_unknown():
    found = count(inits=["torch"], regimes=(50,), learning_rates=[0.1, 1e30], measures={"norm": _norm})
    assert np.isfinite([r["norm"] for r in found.records]).tolist() == [True, False]
    assert said(found, "diverged", "50, torch, 1e+30")


def test_a_measure_that_fails_is_named():
    with pytest.raises(ValueError, match=r"^measures must .* poor raised .*ZeroDivisionError"):
        count(inits=["torch"], regimes=(50,), measures={"poor": lambda objective: 1 / 0})


def test_memory_holds_the_measures(tmp_path):
    lock = threading.Lock()

    def locked(objective):
        with lock:
            return 1.0

    own = {"inits": ["torch"], "regimes": (50,), "memory": tmp_path}
    first = count(measures={"norm": _norm}, **own)
    assert _figures(count(measures={"norm": _norm}, **own)) == _figures(first)
    renamed = count(measures={"length": _norm}, **own)
    assert renamed.records[0]["length"] == first.records[0]["norm"]
    assert count(**own).measures == []
    with pytest.warns(UserWarning, match="not saved"):
        assert count(measures={"locked": locked}, **own).records[0]["locked"] == 1


def test_the_cost_of_measures_is_not_guessed(capsys):
    count(inits=["torch"], regimes=(50,), measures={"norm": _norm}, verbose=1)
    assert "not known beforehand: norm" in capsys.readouterr().out


# -- interrupted -------------------------------------------------------------------------------------------------------

# Of each init 10 steps with batches of 10 samples, then 2 with one of 50.


@pytest.mark.parametrize(("step", "n_done"), [(13, 1), (21, 2), (23, 3)])
def test_ctrl_c_reports_what_had_finished(step, n_done):
    stopped = count(small(net=interrupting_at(step)))
    assert stopped.interrupted
    assert _figures(stopped) == _figures(count(small(net=TinyF1)))[:n_done]
    assert said(stopped, f"Interrupted: {n_done} of 4")
    leaves(stopped)


def test_ctrl_c_before_anything_has_finished():
    with pytest.raises(KeyboardInterrupt):
        count(small(net=interrupting_at(3)))


def test_memory_loads_what_had_finished(tmp_path, monkeypatch):
    expected = count(small(net=TinyF1))
    steps, original = [], TrainingNet.train_step

    def train_step(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 21:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(TrainingNet, "train_step", train_step)
    assert count(small(net=TinyF1), memory=tmp_path).interrupted
    assert _figures(count(small(net=TinyF1), memory=tmp_path)) == _figures(expected)
    assert len(steps) == 21 + 4


# -- bad input: found before anything is trained -----------------------------------------------------------------------

BAD = {
    "regimes": ({"regimes": "SB"}, "regimes must be a sequence of batch regimes or a dict"),
    "inits": ({"inits": "torch"}, "inits must be a sequence of initialisations or a dict label -> init; got 'torch'."),
    "no inits": ({"inits": ()}, "inits must be a sequence"),
    "unknown init": ({"inits": ["zeros"]}, "init must be 'glorot_uniform', 'torch' or a callable"),
    "twice": ({"inits": ["torch", "torch"]}, "inits must have different labels"),
    "one name for two pairs": (
        {"regimes": {"a": {}, "a, b": {}}, "inits": {"b, c": "torch", "c": "torch"}},
        "inits must have labels that give every pair of a regime and an init its own name",
    ),
    "n_trials": ({"n_trials": 0}, "n_trials must be an integer of at least 1; got 0."),
    "target_loss": ({"target_loss": 0}, "target_loss must be a number above 0; got 0."),
    "two epsilons": ({"epsilon": [1e-3, 5e-4]}, "epsilon must be one number for minima_census; got [0.001, 0.0005]."),
    "no epsilon": ({"epsilon": []}, "epsilon must be one number for minima_census; got []."),
    "epsilon 0": ({"epsilon": 0}, "epsilon must be a number above 0"),
    "dims": (
        {"measurement": Measurement(subspace_dims=[None, 3])},
        "subspace_dims must have one entry for minima_census; got [None, 3].",
    ),
    "solver": ({"solver": "best"}, "solver must be one of "),
    "scoring": ({"scoring": ["f1"]}, "scoring must be defined for these labels"),
    "init in a regime": ({"regimes": {"a": {"init": "torch"}}}, "regimes must not set init"),
    "no rates": ({"learning_rates": []}, "learning_rates must be None or a sequence of numbers above 0; got []."),
    "rate 0": ({"learning_rates": [0.1, 0]}, "learning_rates must be None or a sequence of numbers above 0"),
    "rates twice": ({"learning_rates": [0.1, 0.1]}, "learning_rates must all be different"),
    "rates of the regimes": (
        {"learning_rates": [0.1], "regimes": {"a": {"lr": 0.1}}},
        "regimes must not set lr with learning_rates",
    ),
    "a rate that overrides": (
        {"learning_rates": [0.1], "estimator": small(optimizer__lr=0.1)},
        "learning_rates must be None if the estimator has optimizer__lr",
    ),
    "no measures": ({"measures": []}, "measures must contain at least one measure"),
    "unknown measure": ({"measures": ["flat"]}, "measures must contain names from "),
    "a column": ({"measures": {"seed": "fisher_trace"}}, "measures must not use the name of another column"),
    "a score": ({"measures": {"test_f": "fisher_trace"}}, "measures must not use the name of another column"),
    "a sharpness": ({"measures": {"sharpness_2": "fisher_trace"}}, "measures must not use the name of another column"),
    "instance": ({"estimator": small(net=Mlp())}, "net must be a name, a class or a function"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values(case, monkeypatch):
    monkeypatch.setattr(LBGapClassifier, "fit", lambda *_: pytest.fail("trained before the error was found"))
    kwargs, sentence = BAD[case]
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        count(**kwargs)


def test_a_measurement_in_a_subspace():
    found = count(inits=["torch"], regimes=(10,), measurement=Measurement(subspace_dims=[3], solver="power"))
    assert found.sharpness_name == "sharpness_0.001_dim3"
    assert len(found.values("10, torch", "sharpness_0.001_dim3")) == 1


# -- the result --------------------------------------------------------------------------------------------------------


def test_groups_by_pair_and_by_text():
    found = census()
    assert found.groups == GROUPS
    assert found.labels == [", ".join(group) for group in GROUPS]
    for label in (("LB", "torch"), "LB, torch"):
        np.testing.assert_array_equal(found.values(label, "sharpness_0.001"), 2 * np.array(LB_SHARPNESS))


def test_statistics():
    found = census()
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
    assert of_regimes.score_difference.value == pytest.approx(np.mean(LB_ACCURACIES) - 0.955)
    assert of_regimes.score_difference.covers == NEW_SEEDS
    of_inits = contrasts[GROUPS[2], GROUPS[3]]
    assert of_inits.sharpness_ratio.value == pytest.approx(2)
    assert of_inits.score_difference.value == 0


def test_differences_cover_new_samples_where_these_are_there(real):
    contrast = real.contrasts()[0]
    one, other = (
        np.array([real.samples_of(", ".join(group), trial).values for trial in (0, 1)], dtype=float)
        for group in (contrast.second, contrast.first)
    )
    expected = crossed_components(one - other).estimate()
    found = contrast.score_difference
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert found.covers == NEW_SEEDS_AND_ROWS
    assert f"of accuracy, in brackets: 95 % interval, for {NEW_SEEDS_AND_ROWS}" in str(real)
    parts = json.loads(real.to_json())["contrasts"][0]["components"]
    assert parts["n_rows"] == 25
    assert {c.score_difference.covers for c in census(samples=True).contrasts()} == {NEW_SEEDS_AND_ROWS}


def test_the_first_score_is_what_is_compared():
    found = count(n_trials=2, inits=["torch"], scoring="balanced_accuracy")
    one, other = (found.values(label, "test_balanced_accuracy") for label in (("10", "torch"), ("50", "torch")))
    assert found.contrasts()[0].score_difference.value == pytest.approx((other - one).mean())
    assert "test balanced_accuracy, population" in str(found)
    assert found.plot().ax_.get_ylabel() == "test balanced_accuracy"


def test_detectable_is_where_an_interval_leaves_0():
    for n in (6, 20, 50):
        rng, border = np.random.default_rng(0), census(n_trials=n).detectable()
        for _ in range(100):
            found = rank_correlation(rng.normal(size=n), rng.normal(size=n))
            if found.has_interval and abs(abs(found.value) - border) > 0.002:
                assert found.excludes(0) == (abs(found.value) > border)
    assert math.isnan(census(n_trials=3).detectable())


def test_printed():
    found = census()
    text = str(found)
    first, second = text.splitlines()[:2]
    assert "lower test scores" in first
    assert all(name in first for name in ("LB, glorot_uniform", "LB, torch"))
    assert "SB, torch" not in first
    assert "LB, glorot_uniform against SB, glorot_uniform: sharpness 4 times" in second
    assert "-8.00 points [-10.30, -5.70]" in second
    row = " ".join(line for line in text.splitlines() if line.startswith("LB, glorot_uniform  "))
    for cell in ("1.0e-02 ± 0.0e+00", "87.50 ± 1.87", "14 ± 7.48", "   6 ", "   14 ", "   22 "):
        assert cell in row
    assert "sharper in 93 % of pairs" in text
    assert said(found, "proportions in which it finds them")
    assert "trained to a loss of 0.05: " in str(census(target_loss=0.05))
    assert "6 minima for each" in text
    leaves(found)


def test_no_relation_and_the_other_one():
    flat = [census_record(*group, i, test_accuracy=0.9 + 0.01 * (i % 2)) for group, i in ALL]
    assert "No group shows" in census(flat)._verdict()[0]
    rising = [census_record(*group, i, test_accuracy=0.9 + 0.01 * i) for group, i in ALL]
    assert "higher test scores" in census(rising)._verdict()[0]


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (0, 1, 2, 4, 3, 5)], ids=["perfectly", "nearly"])
def test_sharpness_that_goes_with_the_loss(order):
    records = [census_record(*group, i, train_loss=0.01 + 1e-4 * order[i] * (group == GROUPS[0])) for group, i in ALL]
    assert said(census(records), "SB, glorot_uniform", "is correlated with the training loss", "+")
    assert not any("is correlated with the training loss" in sentence for sentence in census().notes)


def test_unequal_losses():
    records = [census_record(*group, trial, train_loss=0.001 if group[0] == "LB" else 0.01) for group, trial in ALL]
    assert said(census(records), "1.0e-03", "1.0e-02", "target_loss")
    assert said(census(records, target_loss=0.01), "1.0e-03", "1.0e-02")
    assert not any("target_loss" in sentence for sentence in census(records, target_loss=0.01).notes)
    assert not any("training losses" in sentence for sentence in census().notes)


def test_convergence():
    records = [census_record(*group, trial, converged=trial > 0) for group, trial in ALL]
    assert said(census(records), "not converged", "SB, torch (in 1 of 6 fits)")
    assert said(census(records, target_loss=0.01), "target loss", "SB, torch (in 1 of 6 fits)")


def test_no_model_beats_the_majority():
    poor = [census_record(*group, trial, test_accuracy=0.5) for group, trial in ALL]
    assert said(census(poor, samples=True), "50.0 %", "balanced_accuracy")
    assert not any("50.0 %" in sentence for sentence in census(samples=True).notes)


def test_diverged_and_interrupted():
    lost = {"train_loss": math.nan, "sharpness_0.001": math.nan}
    records = [census_record("SB", "torch", trial, **(lost if trial == 2 else {})) for trial in range(3)]
    found = census(records, interrupted=True)
    assert found.groups == [("SB", "torch")]
    assert found.contrasts() == []
    assert said(found, "Interrupted: 3 of 24")
    assert said(found, "diverged", "SB, torch (in 1 of 3 fits)")
    assert len(found.values(("SB", "torch"), "sharpness_0.001")) == 2
    leaves(found)


def test_the_accuracy_of_a_diverged_fit_is_no_minimum_s():
    lost = {"train_loss": math.nan, "sharpness_0.001": math.nan, "test_accuracy": 0.1}
    records = [census_record(*group, i, **(lost if (group, i) == (GROUPS[0], 0) else {})) for group, i in ALL]
    for samples in (False, True):
        found = census(records, samples=samples)
        values = found.by_trial(GROUPS[0], "test_accuracy")
        np.testing.assert_array_equal(values, [math.nan, *[0.96, 0.95, 0.96, 0.95, 0.96]])
        difference = found.contrasts()[0].score_difference
        assert difference.n == 5
        assert difference.value == pytest.approx(np.mean(LB_ACCURACIES[1:]) - 0.956)


def test_one_trial():
    found = census([census_record(*group, 0) for group in GROUPS], n_trials=1)
    assert "1 minimum for each" in str(found)
    assert said(found, "no interval", "LB, torch against SB, torch")
    leaves(found)


def test_files_escape(tmp_path):
    found = census()
    content = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert content["records"] == found.records
    assert content["groups"][0]["n"] == 6
    assert content["contrasts"][0]["sharpness_ratio"]["value"] == pytest.approx(4)
    assert r"glorot\_uniform" in found.to_latex(tmp_path / "census.tex")
    assert (tmp_path / "census.tex").exists()
    odd = MinimaCensus([], [("<a>", "b|c")], found.settings)
    assert "<a>" not in odd._repr_html_()
    pytest.importorskip("pandas")
    assert len(found.to_frame()) == 24


def test_intervals_that_are_counted_are_those_that_are_printed():
    assert not any("intervals holds" in note for note in census([census_record(*g, 0) for g in GROUPS]).notes)
    # Four correlations, and two contrasts of the score; the others have the same value in all trials.
    assert said(census(), "Each of the 6 intervals")


@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc_ovr"])
def test_a_class_that_is_not_tested_is_found_before_training(scoring):
    seen = Y[50:] < 2
    with pytest.raises(ValueError, match=f"{scoring} is not: "):
        count(small(net=interrupting_at(1)), data=(X[:50], Y[:50], X[50:][seen], Y[50:][seen]), scoring=scoring)
