import json
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch.callbacks import Callback

from sklgap import LatestAveraging, WeightAveraging, explain_gap
from sklgap.experiments import GapExplanation
from sklgap.experiments._explain_gap import CAUSES
from sklgap.experiments._scores import Score
from sklgap.experiments._trials import Outcome
from tests.experiments.comparisons import DATA, figures
from tests.experiments.experiments import COMMON, leaves, made_up_record, said
from tests.tiny import Mlp, interrupting_at, small

SIZES = {"small": 5, "large": 25}
OWN = {"momentum": {"lr": 0.05}, "$noise_50%": {"proximal_lambda": 1e-3}}


def explain(estimator=None, data=DATA, **kwargs):
    defaults = {**SIZES, "n_trials": 1, "causes": ["learning rate"], "random_state": 0, "verbose": 0}
    return explain_gap(small() if estimator is None else estimator, *data, **{**defaults, **kwargs})


ACCURACY = {
    "small batch": (0.95, 0.96, 0.94),
    "large batch": (0.80, 0.86, 0.82),
    "without a": (0.90, 0.89, 0.90),
    "without a, b": (0.92, 0.94, 0.93),
    "without b alone": (0.79, 0.86, 0.81),
}


def explanation(accuracy=ACCURACY, interrupted=False, skip=(), causes=("a", "b"), regimes=None, **values):
    """Return a result that is made up; ``values`` are further ones of the records, by label."""
    records = [
        made_up_record(label, trial, test_accuracy=value, **values.get(label.replace(" ", "_"), {}))
        for label, of_label in accuracy.items()
        for trial, value in enumerate(of_label)
        if (label, trial) not in skip
    ]
    settings = {
        **COMMON,
        "epsilon": [],
        "n_trials": 3,
        "reference": "small batch",
        "batch_sizes": {"small": 10, "large": 100},
        "causes": list(causes),
        "not_removed": {},
        "regimes": regimes or {label: {} for label in accuracy},
    }
    return GapExplanation([Outcome(r, {}, None) for r in records], list(accuracy), settings, interrupted)


def adds_up(found):
    return sum(part.value for part in found.parts().values()) == pytest.approx(found.total().value, abs=1e-12)


# -- the sum -----------------------------------------------------------------------------------------------------------


def test_parts_by_hand():
    found = explanation()
    values = {name: part.value for name, part in found.parts().items()}
    assert values == pytest.approx({"a": 0.07, "b": 0.1 / 3, "not explained": 0.02})
    assert found.total().value == pytest.approx(0.37 / 3)
    assert {name: e.value for name, e in found.alone().items()} == pytest.approx({"a": 0.07, "b": -0.02 / 3})
    assert adds_up(found)
    assert found.total().n == 3


@pytest.mark.parametrize("missing", [*ACCURACY])
def test_parts_add_up_over_the_trials_that_have_all(missing):
    found = explanation(skip=[(missing, 1)], interrupted=True)
    assert adds_up(found)
    on_the_way = "alone" not in missing
    assert {part.n for part in found.parts().values()} == {found.total().n} == {2 if on_the_way else 3}
    leaves(found)


def test_scores_that_are_no_numbers_are_left_out_of_all_parts():
    found = explanation({**ACCURACY, "without a": (0.9, np.nan, 0.9)})
    assert adds_up(found)
    assert found.total().n == 2
    assert said(found, "no finite accuracy", "without a (in 1 of 3")


def test_no_trial_has_all():
    found = explanation(skip=[("without a", t) for t in range(3)], interrupted=True)
    assert "cannot be split" in str(found).splitlines()[0]
    leaves(found)
    with pytest.raises(ValueError, match="explanation must have at least one trial with a score"):
        found.plot()


def test_only_one_label_has_finished():
    found = explanation({**ACCURACY, **{k: () for k in ACCURACY if k != "large batch"}}, interrupted=True)
    assert said(found, "3 of 15 fits")
    leaves(found)


# -- sentences ---------------------------------------------------------------------------------------------------------


def test_the_verdict_names_all_parts():
    verdict = str(explanation()).splitlines()[0]
    assert "loses 12.33 points of accuracy [" in verdict
    assert "a 7.00 [" in verdict
    assert "not explained 2.00 [" in verdict


def test_a_large_batch_that_does_not_lose():
    better = explanation({**ACCURACY, "small batch": (0.75, 0.78, 0.74)})
    verdict = str(better).splitlines()[0]
    assert "does not lose" in verdict
    assert "scores 7.00 points of accuracy" in verdict
    assert "above the small batch" in verdict
    assert "loses -" not in str(better)
    equal = explanation({label: (0.9, 0.9, 0.9) for label in ACCURACY})
    assert "scores 0.00 points of accuracy above the small batch, without an interval" in str(equal)
    assert said(equal, "no interval", "the gap, a, b", "the same result")


def test_an_interval_that_contains_0_is_said_at_once():
    found = explanation({**ACCURACY, "large batch": (0.50, 0.99, 0.99)})
    assert "the interval contains 0" in str(found).splitlines()[0]


def test_what_is_not_explained_is_not_called_a_removal_that_made_it_worse():
    found = explanation({**ACCURACY, "without a, b": (0.99, 0.999, 0.98)})
    assert found.parts()["not explained"].high < 0
    assert not any("became worse when these were removed" in note for note in found.notes)
    found = explanation({**ACCURACY, "without a": (0.70, 0.765, 0.72)})
    assert said(found, "became worse when these were removed", "a.")


def test_equal_budgets_that_a_stopping_rule_ended():
    regimes = {label: {} for label in ACCURACY} | {"without a": {"regime_adaptation": True}}
    unequal = {"without_a": {"n_updates": 120}}
    assert said(explanation(regimes=regimes, **unequal), "120", "200", "stopping rule")
    assert not any("stopping rule ended" in note for note in explanation(regimes=regimes).notes)
    assert not any("stopping rule ended" in note for note in explanation(**unequal).notes)


def test_a_score_in_its_own_units():
    plain = explanation()
    outcomes = [
        Outcome({**r, "test_gain": 100 * r["test_accuracy"], "train_gain": 99.0}, {}, None) for r in plain.records
    ]
    found = GapExplanation(
        outcomes, plain.labels, plain.settings, scores=(Score("gain", scorer=len), Score("accuracy"))
    )
    assert "loses 12.3333 of gain" in str(found)
    assert "points" not in str(found)
    assert adds_up(found)
    leaves(found)


# -- trained -----------------------------------------------------------------------------------------------------------


def test_by_default_all_that_apply():
    found = explain(causes=None)
    assert found.causes == list(CAUSES)
    assert adds_up(found)
    assert found.labels[:3] == ["small batch", "large batch", "without fewer updates"]
    assert len(found.labels) == 1 + 2 * len(CAUSES)
    updates = {label: found.values(label, "n_updates")[0] for label in found.labels}
    assert updates["large batch"] < updates["without fewer updates"] == updates["small batch"]
    assert [found.values(label, "batch_size")[0] for label in found.labels] == [5, *[25] * (len(found.labels) - 1)]
    ghost, plain = found.estimators_["without batch norm alone"][0], found.estimators_["large batch"][0]
    assert (ghost.ghost_batch_size, plain.ghost_batch_size) == (5, None)
    last = found.estimators_["without fewer updates, learning rate, batch norm, last weights"][0]
    assert (last.regime_adaptation, last.lr_scaling, last.ghost_batch_size) == (True, "sqrt", 5)
    leaves(found)


def test_the_order_of_the_causes():
    one, other = (explain(causes=causes) for causes in (CAUSES[:2], CAUSES[1::-1]))
    assert list(other.parts()) == ["learning rate", "fewer updates", "not explained"]
    assert other.labels[2] == "without learning rate"
    assert one.total().value == other.total().value
    both = "without {}, {}"
    np.testing.assert_array_equal(
        one.values(both.format(*CAUSES[:2]), "train_loss"), other.values(both.format(*CAUSES[1::-1]), "train_loss")
    )


def test_causes_of_your_own():
    found = explain(causes=OWN)
    assert list(found.parts()) == [*OWN, "not explained"]
    together = found.estimators_["without momentum, $noise_50%"][0]
    assert (together.lr, together.proximal_lambda) == (0.05, 1e-3)
    forms = leaves(found)
    assert r"\$noise\_50\%" in forms["latex"]
    assert adds_up(found)


def test_markup_in_names_is_escaped():
    found = explain(causes={"<b>x</b> & | y": {"lr": 0.02}})
    forms = leaves(found)
    assert "<b>x" not in forms["html"]
    assert r"\& " in forms["latex"]
    assert r"\|" in forms["markdown"]


class Counting(Callback):
    epochs_ = 0

    def on_epoch_end(self, net, **kwargs):
        self.epochs_ += 1


def test_callbacks_of_the_user_stay():
    mine = Counting()
    model = small(callbacks=[("mine", mine)])
    found = explain(model, causes=["last weights"])
    names = [name for name, _ in found.estimators_["without last weights"][0].net_.callbacks_]
    assert "mine" in names
    assert "averaged last weights" in names
    assert dict(found.estimators_["large batch"][0].net_.callbacks_).keys() >= {"mine"}
    assert mine.epochs_ == 0
    assert model.callbacks == [("mine", mine)]


def test_callbacks_of_several_causes_add_up():
    found = explain(causes={"one": {"callbacks": [("a", Counting())]}, "two": {"callbacks": [("b", Counting())]}})
    assert dict(found.estimators_["without one, two"][0].net_.callbacks_).keys() >= {"a", "b"}


def test_what_cannot_be_removed_is_named():
    model = small(lr_scaling="linear", regime_adaptation=True, ghost_batch_size=5)
    found = explain(model, causes=None)
    assert found.causes == ["last weights"]
    assert said(found, "not removed", "fewer updates", "lr_scaling='linear'", "ghost_batch_size=5")
    found = explain(small(net=Mlp), causes=None)
    assert "batch norm" not in found.causes
    assert said(found, "not removed", "no batch normalisation")


CANNOT = {
    "regime_adaptation": ({"regime_adaptation": True}, "fewer updates"),
    "iterator_train": ({"iterator_train__shuffle": False}, "fewer updates"),
    "lr_scaling": ({"lr_scaling": "linear"}, "learning rate"),
    "ghost_batch_size": ({"ghost_batch_size": 5}, "batch norm"),
    "no batch normalisation": ({"net": Mlp}, "batch norm"),
    "WeightAveraging": ({"callbacks": [("mine", WeightAveraging())]}, "last weights"),
    "LatestAveraging": ({"callbacks": [LatestAveraging(2)]}, "last weights"),
}


@pytest.mark.parametrize("reason", CANNOT)
def test_a_cause_that_cannot_be_removed_is_refused(reason):
    parameters, cause = CANNOT[reason]
    with pytest.raises(ValueError, match=f"causes must not have '{cause}'.*{reason}"):
        explain(small(**parameters), causes=[cause])


def test_nothing_can_be_removed():
    model = small(net=Mlp, regime_adaptation=True, lr_scaling="sqrt", callbacks=[WeightAveraging()])
    with pytest.raises(ValueError, match="causes must be a dict"):
        explain(model, causes=None)


def test_a_pipeline_with_words_and_frames():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"colour": rng.choice(["red", "blue"], 60), "size": rng.normal(size=60)})
    y = pd.Series(np.where(X["size"] + (X["colour"] == "red") > 0.5, "late", "on time"), index=range(100, 160))
    from sklearn.compose import make_column_transformer

    head = make_column_transformer((OneHotEncoder(), ["colour"]), (StandardScaler(), ["size"]))
    found = explain(make_pipeline(head, small()), (X[:40], y[:40], X[40:], y[40:]), causes=["batch norm"], n_trials=2)
    assert adds_up(found)
    assert found.settings["predict_batch_norm"] == "population"
    leaves(found)


def test_scoring():
    found = explain(scoring=["neg_log_loss", "balanced_accuracy"], n_trials=2)
    assert adds_up(found)
    assert found.total().value == pytest.approx(
        (found.values("small batch", "test_neg_log_loss") - found.values("large batch", "test_neg_log_loss")).mean()
    )
    assert "of neg_log_loss" in str(found)


def test_a_class_that_is_not_tested_is_found_before_training():
    X, y, X_test, y_test = DATA
    seen = y_test < 2
    with pytest.raises(ValueError, match="neg_log_loss is not"):
        explain(interrupted_by(1), data=(X, y, X_test[seen], y_test[seen]), scoring="neg_log_loss")
    assert adds_up(explain(data=(X, y, X_test[seen], y_test[seen])))


def test_stopping_rules_of_the_estimator():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = explain(small(max_epochs=30, target_loss=0.5), causes=["fewer updates"], n_trials=1)
    small_batch, large = (found.values(label, "n_updates")[0] for label in ("small batch", "without fewer updates"))
    assert small_batch != large
    assert said(found, "stopping rule ended")


def test_milestones_count_epochs_of_the_base_batch():
    found = explain(small(max_epochs=4, lr_milestones=[2], lr_decay=0.1), causes=["fewer updates"])
    rates = {label: models[0].history_[:, "lr"] for label, models in found.estimators_.items()}
    assert rates["small batch"] == pytest.approx([0.01, 0.01, 0.001, 0.001])
    adapted = rates["without fewer updates"]
    assert len(adapted) == 20
    assert adapted[:10] == pytest.approx([0.01] * 10)
    assert adapted[-10:] == pytest.approx([0.001] * 10)


# -- refused -----------------------------------------------------------------------------------------------------------

REFUSED = {
    "equal": ({"small": 25, "large": 25}, "small must be a smaller batch"),
    "larger": ({"small": 30}, "small must be a smaller batch"),
    "equal as fraction": ({"small": 25, "large": 0.5}, "small must be a smaller batch"),
    "no size": ({"small": "XL"}, "small must"),
    "flag": ({"large": True}, "large must"),
    "zero": ({"large": 0}, "large must"),
    "unknown cause": ({"causes": ["noise"]}, "causes must be different ones of"),
    "twice": ({"causes": ["batch norm", "batch norm"]}, "causes must be different ones of"),
    "a string": ({"causes": "batch norm"}, "causes must be None, a sequence"),
    "none": ({"causes": []}, "causes must be None, a sequence"),
    "empty dict": ({"causes": {}}, "causes must be a dict"),
    "nothing is set": ({"causes": {"a": {}}}, "causes must be a dict"),
    "the name of the rest": ({"causes": {"not explained": {"lr": 0.1}}}, "causes must be a dict"),
    "a size": ({"causes": {"a": {"batch_size": 5}}}, "causes must not set batch_size"),
    "a seed": ({"causes": {"a": {"random_state": 5}}}, "causes must not set random_state"),
    "undone": ({"causes": {"a": {"lr": 0.1}, "b": {"lr": 0.2}}}, "causes must not set a parameter twice; a and b"),
    "one label": (
        {"causes": {"c alone": {"lr": 0.1}, "c": {"tol": None}}},
        "causes must have names that make different labels",
    ),
    "callbacks": ({"causes": {"a": {"callbacks": None}}}, "callbacks of causes must be lists"),
    "unknown parameter": ({"causes": {"a": {"nonsense": 1}}}, "nonsense"),
    "memory without a seed": ({"memory": "folder", "random_state": None}, "memory must be None"),
}


def interrupted_by(step):
    return small(net=interrupting_at(step), batch_size=None)


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_training(case):
    given, words = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=words):
        explain(interrupted_by(1), **given)


# -- early ends and saved work -----------------------------------------------------------------------------------------


def test_interrupted():
    whole = explain(n_trials=2)
    steps = [int(sum(r["n_updates"] for r in whole.records[: n + 1])) for n in range(4)]
    # In the first trial after the small batch alone; in the second one after the small batch.
    for n_done in (1, 4):
        found = explain(interrupted_by(steps[n_done - 1] + 1), n_trials=2)
        assert found.interrupted
        assert len(found.records) == n_done
        assert said(found, f"{n_done} of 6 fits")
        assert found.total().n == (n_done > 2)
        leaves(found)
    with pytest.raises(KeyboardInterrupt):
        explain(interrupted_by(1))


def test_memory(tmp_path, monkeypatch):
    found = explain(causes=CAUSES[:2], memory=tmp_path)
    monkeypatch.setattr("sklgap.training._step.TrainStep.__call__", None)
    again = explain(causes=CAUSES[:2], memory=tmp_path)
    assert figures(again) == figures(found)
    assert str(again.parts()) == str(found.parts())


def test_one_trial_and_its_file(tmp_path):
    found = explain(verbose=1, causes=["last weights"])
    assert "without an interval" in str(found).splitlines()[0]
    content = json.loads(found.to_json(tmp_path / "found.json"))
    assert content["parts"].keys() == {"last weights", "not explained"}
    assert content["total"]["value"] == pytest.approx(found.total().value)
    assert content["settings"]["cost"]["n_fits"] == [1, 1, 1]
    leaves(found)
