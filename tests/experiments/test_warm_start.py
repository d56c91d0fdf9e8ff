import copy
import json
import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap import LBGapClassifier, SwitchBatch, check_objective, compare_regimes, sharpness, warm_start_curve
from sklgap.experiments import Measurement, WarmStartCurve
from sklgap.experiments._estimate import NEW_SEEDS, NEW_SEEDS_AND_ROWS, crossed_components, ratio_estimate
from sklgap.training import TrainingNet
from tests.cases import no_global_random_numbers
from tests.experiments.experiments import WARM, leaves, said, warm_record, warm_start
from tests.ids import plain
from tests.tiny import Mlp, TinyF1, blobs, interrupting_at, small

X, Y = blobs(75)
DATA = (X[:50], Y[:50], X[50:], Y[50:])
ALL = [(trial, epochs) for trial in (0, 1) for epochs in (0, 5, 10)]


def warm(estimator=None, data=DATA, **kwargs):
    defaults = {"small": 10, "large": 50, "max_small_epochs": 2, "every": 2, "n_trials": 1}
    defaults |= {"random_state": 0, "verbose": 0}
    if "measurement" not in kwargs:
        defaults |= {"epsilon": []}
    return warm_start_curve(small() if estimator is None else estimator, *data, **{**defaults, **kwargs})


def _figures(curve):
    """The records without the seconds."""
    return [{k: v for k, v in record.items() if not k.endswith("_seconds")} for record in curve.records]


FOUR = {"max_small_epochs": 4}
SCORES = {"accuracy": "accuracy", "balanced": "balanced_accuracy"}


@pytest.fixture(scope="module")
def curve():
    return warm(n_trials=2, epsilon=1e-3, solver="power", scoring=SCORES, **FOUR)


def _load(module, state):
    module.load_state_dict(copy.deepcopy(state))


# -- what is trained ---------------------------------------------------------------------------------------------------


def test_a_record_for_every_trial_and_saved_epoch(curve):
    assert isinstance(curve, WarmStartCurve)
    assert [(r["trial"], r["small_epochs"]) for r in curve.records] == [(t, e) for t in (0, 1) for e in (0, 2, 4)]
    assert [r["batch_size"] for r in curve.records] == [50] * 6
    assert [r["n_updates"] for r in curve.records] == [2] * 6
    assert [r["small_n_updates"] for r in curve.records] == [0, 10, 20] * 2
    assert curve.small_epochs.tolist() == [0, 2, 4]
    assert curve.labels == ["0", "2", "4"]


def test_every_point_is_what_separate_trainings_give(curve):
    """The slow reference: a small-batch training for every point, then the large batch from its weights."""
    for record in curve.records[:3]:
        seed, epochs = record["seed"], record["small_epochs"]
        large = small(batch_size=50, random_state=seed)
        if epochs:
            first = small(batch_size=10, max_epochs=epochs, random_state=seed).fit(*DATA[:2])
            state = first.module_.state_dict()
            large.set_params(init=lambda module, state=state: _load(module, state))
            for name, rows in (("train", DATA[:2]), ("test", DATA[2:])):
                expected = check_objective(first, *rows).evaluate()
                assert (record[f"small_{name}_loss"], record[f"small_{name}_accuracy"]) == expected
                balanced = balanced_accuracy_score(rows[1], first.predict(rows[0]))
                assert record[f"small_{name}_balanced"] == pytest.approx(balanced)
            assert record["small_weight_distance"] == pytest.approx(first.history_[-1, "weight_distance"])
        large.fit(*DATA[:2])
        for name, rows in (("train", DATA[:2]), ("test", DATA[2:])):
            assert (record[f"{name}_loss"], record[f"{name}_accuracy"]) == check_objective(large, *rows).evaluate()
        assert record["test_balanced"] == pytest.approx(balanced_accuracy_score(DATA[3], large.predict(DATA[2])))
        expected = sharpness(large, *DATA[:2], solver="power", random_state=seed).value
        assert record["sharpness_0.001"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("policy", ["population", "running"])
def test_the_small_batch_is_measured_as_if_its_training_had_ended(policy):
    for recompute in (True, False):
        model = small(recompute_batch_norm=recompute)
        (record,) = warm(model, batch_norm=policy, max_small_epochs=3, every=3).records[1:]
        first = clone(model).set_params(batch_size=10, max_epochs=3, random_state=record["seed"]).fit(*DATA[:2])
        found = (record["small_test_loss"], record["small_test_accuracy"])
        assert found == check_objective(first, *DATA[2:], batch_norm=policy).evaluate()


def test_0_epochs_is_the_large_batch_of_a_comparison(curve):
    how = {"epsilon": 1e-3, "solver": "power", "scoring": SCORES, "random_state": 0, "verbose": 0}
    report = compare_regimes(small(), *DATA, regimes=(50,), reference="50", n_trials=2, **how)
    for expected, trial in zip(report.records, (0, 1), strict=True):
        (found,) = [r for r in curve.records if (r["trial"], r["small_epochs"]) == (trial, 0)]
        same = [key for key in expected if not key.endswith("_seconds") and key != "regime"]
        assert {key: found[key] for key in same} == {key: expected[key] for key in same}


def test_the_small_batch_is_trained_once_a_trial(monkeypatch):
    fits = []
    original = LBGapClassifier.fit

    def fit(self, *args):
        fits.append(self.batch_regime)
        return original(self, *args)

    monkeypatch.setattr(LBGapClassifier, "fit", fit)
    warm(n_trials=2)
    assert sorted(fits) == [10] * 2 + [50] * 4


def test_the_stopping_rule_is_the_large_batch_s_alone():
    curve = warm(small(target_loss=100.0, tol=1e-4), large_epochs=3)
    assert curve.quantity("small_n_updates").tolist() == [[0], [10]]
    assert curve.quantity("n_epochs").tolist() == [[1], [1]]
    assert warm(large_epochs=3).quantity("n_epochs").tolist() == [[3], [3]]


def test_a_regime_that_varies_and_an_estimator_with_a_batch_size():
    curve = warm(small(batch_size=25), large=SwitchBatch(1, first=10, then=50))
    assert curve.quantity("n_updates").tolist() == [[6], [6]]


class Wrapped(nn.Module):
    """A module that is given as an instance, with arguments that its class has no defaults for."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, X):
        return self.layer(X)


def test_a_module_instance_starts_from_saved_weights_too():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Wrapped(nn.Linear(4, 3))
    before = copy.deepcopy(net.state_dict())
    curve = warm(small(net=net))
    factory = small(net=Wrapped, module__layer=net.layer, init=lambda module: _load(module, before))
    assert _figures(curve) == _figures(warm(factory))
    assert len(np.unique(curve.quantity("train_loss"))) == 2
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("params", [{"ghost_batch_size": 5}, {"net": Mlp}, {"augmentation": lambda X: X}], ids=plain)
def test_other_nets_and_options(params):
    assert len(warm(small(**params)).records) == 2


def test_a_pipeline():
    curve = warm(make_pipeline(StandardScaler(), small()), scoring="balanced_accuracy")
    scaler = StandardScaler().fit(DATA[0])
    data = (scaler.transform(DATA[0]), DATA[1], scaler.transform(DATA[2]), DATA[3])
    assert _figures(curve) == _figures(warm(data=data, scoring="balanced_accuracy"))


def test_labels_that_are_strings_and_data_frames():
    pd = pytest.importorskip("pandas")
    names = np.array(["no", "perhaps", "yes"])
    expected = _figures(warm(scoring="balanced_accuracy"))
    data = (DATA[0], names[DATA[1]], DATA[2], names[DATA[3]])
    assert _figures(warm(data=data, scoring="balanced_accuracy")) == expected
    frames = [pd.DataFrame(part, columns=list("abcd")) if part.ndim == 2 else pd.Series(part) for part in DATA]
    assert _figures(warm(data=frames, scoring="balanced_accuracy")) == expected


def test_the_estimator_is_not_changed():
    model = small()
    before = repr(model.get_params())
    warm(model)
    assert repr(model.get_params()) == before
    assert not hasattr(model, "net_")


def test_a_measurement_is_all_of_its_parameters(curve):
    how = Measurement(epsilon=1e-3, solver="power", scoring=SCORES)
    points = [record for record in _figures(curve) if record["trial"] == 0 and record["small_epochs"] < 4]
    assert _figures(warm(measurement=how, n_trials=2))[:2] == points
    with pytest.raises(ValueError, match="measurement must be None if epsilon"):
        warm(measurement=how, epsilon=[])


# -- random numbers and processes --------------------------------------------------------------------------------------


def test_repeatable_from_random_state():
    with torch.random.fork_rng(devices=[]), no_global_random_numbers():
        first = _figures(warm(scoring="balanced_accuracy"))
    assert _figures(warm(scoring="balanced_accuracy")) == first
    assert _figures(warm(scoring="balanced_accuracy", random_state=1)) != first


@pytest.mark.slow
def test_two_processes_find_what_one_finds(curve):
    assert _figures(warm(n_trials=2, epsilon=1e-3, solver="power", scoring=SCORES, n_jobs=2, **FOUR)) == _figures(curve)


def test_verbose(capsys):
    warm()
    assert capsys.readouterr() == ("", "")
    curve = warm(verbose=1)
    out, err = capsys.readouterr()
    assert out.count("cost:") == 2
    assert "1 fit of 10 updates" in out  # the small batch: two epochs of five steps
    assert "2 fits of 2 updates" in out
    assert "small-batch fits" in err
    assert "2/2" in err
    assert [curve.settings["cost"][phase]["n_fits"] for phase in ("small", "large")] == [[1], [2]]


# -- interrupted and diverged ------------------------------------------------------------------------------------------

# Two trials: a small-batch training makes 10 steps, and each of the four large-batch ones 2.
STEPS = {"second small": (13, 1, 0), "first large": (21, 2, 0), "second large": (23, 2, 1), "last large": (27, 2, 3)}


@pytest.fixture(scope="module")
def tiny_curve():
    return warm(small(net=TinyF1), n_trials=2)


@pytest.mark.parametrize("phase", STEPS)
def test_ctrl_c_reports_what_had_finished(phase, tiny_curve):
    step, n_small, n_large = STEPS[phase]
    stopped = warm(small(net=interrupting_at(step)), n_trials=2)
    assert stopped.interrupted
    assert stopped.small_records == tiny_curve.small_records[: 2 * n_small]
    assert _figures(stopped) == _figures(tiny_curve)[:n_large]
    (sentence,) = [sentence for sentence in stopped.notes if "Interrupted" in sentence]
    assert (f"{n_small} of 2" if n_small < 2 else f"{n_large} of 4") in sentence
    assert json.loads(leaves(stopped)["json"])["small_records"] == stopped.small_records
    assert stopped.quantity("small_test_accuracy").shape == (2, 2)


def test_ctrl_c_before_anything_has_finished():
    with pytest.raises(KeyboardInterrupt):
        warm(small(net=interrupting_at(3)))


# A step of the second small-batch training, and of the second large-batch one; and the steps that are left to make.
@pytest.mark.parametrize(("step", "n_left"), [(13, 18), (23, 6)])
def test_memory_loads_what_had_finished(step, n_left, tmp_path, monkeypatch, tiny_curve):
    steps, original = [], TrainingNet.train_step

    def train_step(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == step:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(TrainingNet, "train_step", train_step)
    assert warm(small(net=TinyF1), n_trials=2, memory=tmp_path).interrupted
    found = warm(small(net=TinyF1), n_trials=2, memory=tmp_path)
    assert not found.interrupted
    assert _figures(found) == _figures(tiny_curve)
    assert found.small_records == tiny_curve.small_records
    assert len(steps) <= step + n_left


def test_a_small_batch_training_that_diverges_leaves_the_large_batch_from_scratch():
    curve = warm(small(lr=1e30))
    assert [r["small_epochs"] for r in curve.records] == [0]
    assert said(curve, "1 of 2", "missing")
    leaves(curve)


# -- bad input: found before anything is trained -----------------------------------------------------------------------

BAD = {
    "max_small_epochs": ({"max_small_epochs": 0}, "max_small_epochs must be an integer of at least 1; got 0."),
    "every": ({"every": 1.5}, "every must be an integer of at least 1; got 1.5."),
    "every too large": ({"every": 5}, "every must be at most max_small_epochs=2; got 5."),
    "large_epochs": ({"large_epochs": 0}, "large_epochs must be None or an integer of at least 1; got 0."),
    "n_trials": ({"n_trials": 0}, "n_trials must be an integer of at least 1; got 0."),
    "small": ({"small": "XL"}, "small must be 'SB', 'LB', an integer, a fraction or a BatchRegime; got 'XL'."),
    "large": ({"large": 0}, "large must be an integer of at least 1, a fraction"),
    "epsilon": ({"epsilon": 0}, "epsilon must be "),
    "epsilon twice": ({"epsilon": [1e-3, 1e-3]}, "epsilon must not have the same box size twice"),
    "subspace_dims": ({"subspace_dims": [0]}, "subspace_dims must be "),
    "batch_norm": ({"batch_norm": "train"}, "batch_norm must be one of 'batch', 'population', 'running'; got 'train'."),
    "solver": ({"solver": "best"}, "solver must be one of "),
    "max_samples": ({"max_samples": 0}, "max_samples must be "),
    "scoring": ({"scoring": "acuracy"}, "scoring must be the name of "),
    "scoring of three classes": ({"scoring": "f1"}, "scoring must be defined for these labels"),
    "measurement": ({"measurement": {"epsilon": 1e-3}}, "measurement must be None or a Measurement"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values(case, monkeypatch):
    monkeypatch.setattr(LBGapClassifier, "fit", lambda *_: pytest.fail("trained before the error was found"))
    kwargs, sentence = BAD[case]
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        warm(**kwargs)


def test_unknown_labels():
    with pytest.raises(ValueError, match="y_test must not have labels that y does not have"):
        warm(data=(*DATA[:3], DATA[3] + 7))


def test_a_wrong_parameter_of_the_estimator_is_a_sentence():
    with pytest.raises(ValueError, match="lr must be"):
        warm(clone(small()).set_params(lr=-1))


# -- the result --------------------------------------------------------------------------------------------------------


def test_labels_as_numbers():
    curve = warm_start()
    for label in (5, "5", np.int64(5)):
        np.testing.assert_array_equal(curve.values(label, "test_accuracy"), [0.91, 0.91])
    assert [(r["trial"], r["small_epochs"]) for r in curve.records] == ALL
    assert [r["regime"] for r in curve.records[:2]] == ["LB after 0 epochs", "LB after 5 epochs"]


def test_gain_and_cost_are_paired_differences():
    curve = warm_start()
    large, of_small = (np.array(WARM[key]).T for key in ("test_accuracy", "small_test_accuracy"))
    np.testing.assert_array_equal(curve.quantity("test_accuracy"), large)
    np.testing.assert_array_equal(curve.quantity("small_test_accuracy"), of_small)
    for i, (gain, cost) in enumerate(zip(curve.gain(), curve.cost(), strict=True)):
        assert gain.value == pytest.approx((large[i] - large[0]).mean())
        assert cost.value == pytest.approx((of_small[i] - large[i]).mean())
        assert {gain.covers, cost.covers} == {NEW_SEEDS}  # this made-up curve does not know the samples
    assert said(curve, "but not new samples")
    ratio = curve.sharpness_ratio(1e-3)[2]
    assert ratio.value == pytest.approx(np.sqrt(10 / 100 * 5 / 200))
    assert ratio == ratio_estimate([10, 5], [100, 200])


def test_intervals_cover_new_samples_where_these_are_there(curve):
    for found, reference, name in ((curve.gain()[2], 0, "test_accuracy"), (curve.cost()[2], 4, "small_test_accuracy")):
        samples = [
            [curve.samples_of(label, trial, quantity).values for trial in (0, 1)]
            for label, quantity in ((reference, name), (4, "test_accuracy"))
        ]
        sign = -1 if reference == 0 else 1
        differences = sign * (np.array(samples[0], dtype=float) - np.array(samples[1], dtype=float))
        expected = crossed_components(differences).estimate()
        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
        assert found.covers == NEW_SEEDS_AND_ROWS
    assert f"for {NEW_SEEDS_AND_ROWS}" in str(curve)
    made_up = warm_start(samples=True)
    assert {e.covers for e in (*made_up.gain(), *made_up.cost())} == {NEW_SEEDS_AND_ROWS}
    assert not any("but not new samples" in sentence for sentence in made_up.notes)


def test_any_score_has_a_gain_and_a_cost(curve):
    values, of_small = (curve.quantity(name) for name in ("test_balanced", "small_test_balanced"))
    assert curve.gain("balanced")[1].value == pytest.approx((values[1] - values[0]).mean())
    assert curve.cost("balanced")[1].value == pytest.approx((of_small[1] - values[1]).mean())
    assert "gain, balanced" in str(curve)
    assert "test balanced, population" in str(curve)  # what predict uses
    assert "test accuracy (%), batch" in str(curve)
    point = json.loads(curve.to_json())["points"][2]
    assert point["scores"]["balanced"]["gain"]["value"] == pytest.approx(curve.gain("balanced")[2].value)
    with pytest.raises(ValueError, match="score must be one of 'accuracy', 'balanced'; got 'f1'"):
        curve.gain("f1")


def test_printed():
    text = str(warm_start())
    first, second = text.splitlines()[:2]
    assert "4.50 points of accuracy" in first
    assert "after 10 SB epochs" in first
    assert "contains 0" in first
    assert "1.00 points of accuracy" in second
    row = " ".join(line for line in text.splitlines() if line.startswith("10 "))
    for cell in ("96.50 ± 0.71", "95.50 ± 0.71", "7.5 ± 3.54", "+4.50 [-1.85, +10.85]"):
        assert cell in row
    assert "relative to that from scratch: 0.05 times" in text
    assert "95 % interval, for new seeds" in text
    leaves(warm_start())


def test_a_gain_that_is_shown_and_one_that_is_not():
    assert said(warm_start(), "contains 0", "after 10")
    clear = [warm_record(t, e, test_accuracy=0.9 + 0.01 * e + 0.0001 * t * e) for t, e in ALL]
    found = warm_start(clear)
    assert not any("contains 0" in sentence for sentence in found.notes)
    assert found._verdict()[0].endswith("above LB from scratch.")
    worse = warm_start([warm_record(t, e, test_accuracy=0.9 - 0.01 * e - 0.0001 * t * e) for t, e in ALL])
    assert "10.05 points of accuracy" in worse._verdict()[0]
    assert "below LB from scratch" in worse._verdict()[0]


def test_what_is_always_said():
    assert said(warm_start(), "has also made the updates of SB")
    assert said(warm_start(), "2 intervals")


def test_unequal_losses():
    records = [warm_record(t, e, train_loss=0.01 if e < 10 else 0.001) for t, e in ALL]
    assert said(warm_start(records), "1.0e-02", "LB after 10 SB epochs (1.0e-03)", "sharpness")
    assert not any("training losses" in s for s in warm_start().notes)
    assert not any("training losses" in s for s in warm_start(records, epsilon=[]).notes)


def test_convergence():
    assert said(warm_start([warm_record(t, e, converged=e > 0) for t, e in ALL]), "not converged", "2 of 6")
    assert said(warm_start([warm_record(t, e, converged=None) for t, e in ALL]), "no stopping rule")


def test_no_model_beats_the_majority():
    poor = [warm_record(t, e, test_accuracy=0.5, small_test_accuracy=0.45) for t, e in ALL]
    assert said(warm_start(poor, samples=True), "50.0 %", "balanced_accuracy")
    one = [warm_record(t, e, test_accuracy=0.5, small_test_accuracy=0.9) for t, e in ALL]
    assert not any("50.0 %" in sentence for sentence in warm_start(one, samples=True).notes)


def test_missing_fits():
    records = [warm_record(0, 0), warm_record(0, 5), warm_record(1, 0)]
    curve = warm_start(records, interrupted=True)
    assert said(curve, "3 of 6 large-batch fits")
    assert [gain.n for gain in curve.gain()] == [2, 1, 0]
    assert "without an interval" in curve._verdict()[0]
    leaves(curve)
    assert said(warm_start(records), "3 of 6", "missing")


def test_nothing_to_compare():
    curve = warm_start([warm_record(0, 0)], interrupted=True)
    assert "Nothing can be compared" in str(curve)
    leaves(curve)


def test_trainings_that_diverged():
    records = [
        warm_record(t, e, **({"train_loss": np.nan, "sharpness_0.001": np.nan} if e == 5 else {})) for t, e in ALL
    ]
    assert said(warm_start(records), "not finite", "LB after 5 SB epochs")
    json.loads(warm_start(records).to_json(), parse_constant=pytest.fail)
    at_the_end = warm_start([warm_record(t, e, **({"train_loss": np.nan} if e == 10 else {})) for t, e in ALL])
    assert said(at_the_end, "not finite")
    assert not any("training losses of" in sentence for sentence in at_the_end.notes)


def test_no_sharpness():
    records = [warm_record(t, e) for t, e in ALL]
    assert "sharpness" not in str(warm_start(records, epsilon=[])).lower()


def test_files_escape(tmp_path):
    curve = warm_start(small="<SB & co>", large="LB_50")
    assert "&lt;SB &amp; co&gt;" in curve._repr_html_()
    assert "<SB" not in curve._repr_html_()
    assert r"LB\_50" in curve.to_latex(tmp_path / "curve.tex")
    assert r"\& co" in (tmp_path / "curve.tex").read_text(encoding="utf-8")
    content = json.loads(curve.to_json(tmp_path / "curve.json"), parse_constant=pytest.fail)
    assert content["records"] == curve.records
    assert content["points"][2]["scores"]["accuracy"]["gain"]["value"] == pytest.approx(0.045)
    assert content["points"][2]["scores"]["accuracy"]["gain"]["components"]["trials"] == pytest.approx([0.05, 0.04])
    pytest.importorskip("pandas")
    assert curve.to_frame()["small_epochs"].tolist() == [0, 5, 10, 0, 5, 10]


@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc_ovr"])
def test_a_class_that_is_not_tested_is_found_before_training(scoring):
    seen = Y[50:] < 2
    with pytest.raises(ValueError, match=f"{scoring} is not: "):
        warm(small(net=interrupting_at(1)), data=(X[:50], Y[:50], X[50:][seen], Y[50:][seen]), scoring=scoring)
