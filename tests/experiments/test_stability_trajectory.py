import json
import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, GradientNormClipping
from skorch.dataset import ValidSplit
from torch import nn

from sklgap import stability_trajectory
from sklgap.experiments import StabilityTrajectory
from sklgap.inspection import StabilityTrajectoryDisplay, hessian_eigenvalues
from sklgap.remedies import SAM, SampleNoise
from sklgap.training import TrainingNet
from tests.experiments.experiments import leaves, said
from tests.tiny import Mlp, Switching, blobs, interrupting_at, small

X, Y = blobs(50)
SGD = {"optimizer": torch.optim.SGD, "lr": 0.1}


def follow(estimator=None, data=(X, Y), **kwargs):
    defaults = {"regimes": (10, 50), "every": 1, "at_updates": None, "random_state": 0, "verbose": 0}
    return stability_trajectory(small(**SGD) if estimator is None else estimator, *data, **{**defaults, **kwargs})


@pytest.fixture(scope="module")
def real():
    return follow(n_trials=2, n_eigenvalues=2)


# -- what is trained and measured --------------------------------------------------------------------------------------


def test_every_record_is_what_a_separate_training_gives(real):
    assert isinstance(real, StabilityTrajectory)
    keys = [(r["trial"], r["regime"], r["epoch"]) for r in real.records]
    assert keys == [(t, regime, e) for t in (0, 1) for regime in ("10", "50") for e in (1, 2)]
    for record in real.records:
        size, epochs, seed = int(record["regime"]), int(record["epoch"]), record["seed"]
        model = small(batch_size=size, max_epochs=epochs, random_state=seed, **SGD).fit(X, Y)
        found = hessian_eigenvalues(model, X, Y, k=2, random_state=0)
        np.testing.assert_allclose([record["eigenvalue"], record["eigenvalue_2"]], found.eigenvalues, rtol=1e-4)
        assert record["threshold"] == pytest.approx(20)
        assert record["relative"] == pytest.approx(record["eigenvalue"] / 20)
        assert record["converged"]


class SquaredError(nn.Module):
    """The squared error of the classes as unit vectors."""

    def forward(self, y_pred, y):
        return ((y_pred - nn.functional.one_hot(y, y_pred.shape[1])) ** 2).sum(dim=1).mean()


def test_full_batches_sharpen_until_the_edge_and_ride_there():
    """Gradient descent on all samples, as Cohen et al. (2021) have it: a small net and labels of no meaning."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((40, 8)).astype(np.float32), rng.integers(0, 3, 40)
    net = {"net": Mlp, "module__n_in": 8, "module__width": 24, "init": "torch", "criterion": SquaredError}
    regimes = {"4": {"batch_size": 4, "max_epochs": 15}, "all": {"batch_size": -1, "max_epochs": 300}}
    found = follow(small(**{**SGD, **net, "lr": 0.2}), data, regimes=regimes, every=40, at_updates=[1, 100, 200, 300])
    relative = found.relative("all")[0]
    assert relative[0] < 0.8  # it begins below, and sharpens
    assert found.share_at_edge("all")[0] == 1
    assert 0.9 < np.median(found._late("all")[0]) < 1.2
    assert np.median(found._late("4")[0]) < np.median(found._late("all")[0])
    assert found.verdict[1].startswith("all trains at the edge of stability")


def test_paired_trials_begin_alike_and_differ():
    found = follow(n_trials=2, at_updates=[0], every=None)
    start = {(r["trial"], r["regime"]): r["eigenvalue"] for r in found.records}
    assert start[0, "10"] == start[0, "50"] != start[1, "10"] == start[1, "50"]


def test_repeatable_and_a_pipeline(real):
    assert follow(n_eigenvalues=2).records == [record for record in real.records if record["trial"] == 0]
    once = {"every": None, "at_updates": [10]}
    piped = follow(make_pipeline(StandardScaler(), small(net=Mlp, **SGD)), **once)
    scaled = follow(small(net=Mlp, **SGD), (StandardScaler().fit_transform(X), Y), **once)
    assert piped.records == scaled.records


def test_adam_is_measured_as_it_preconditions():
    found = follow(small(net=Mlp, lr=0.02), at_updates=[0, 1])
    assert found.settings["preconditioned"] == {"10": True, "50": True}
    assert np.isnan([r["eigenvalue"] for r in found.records if not r["n_updates"]]).all()
    np.testing.assert_allclose([r["threshold"] for r in found.records if r["n_updates"]], 38 / 0.02)
    assert said(found, "2 records of 7 have no eigenvalue. The reason: an adaptive optimiser", "first update")
    assert "P^-1/2" in str(found)
    assert found.curves("10")[0].n_updates.tolist() == [1, 5, 10]


@pytest.mark.parametrize("threshold", [None, 3.0])
def test_without_the_threshold_of_the_optimiser(threshold):
    found = follow(small(net=Mlp, remedies=[("sam", SAM())]), threshold=threshold)
    assert found.settings["formula"] == {"10": None, "50": None}
    assert ("no threshold" in found.verdict[0]) == (threshold is None)
    leaves(found)


def test_a_training_that_diverges_is_recorded_without_eigenvalues():
    found = follow(small(net=Mlp, criterion=SquaredError, optimizer=torch.optim.SGD, lr=1e6, max_epochs=6))
    assert not math.isfinite(found.records[-1]["eigenvalue"])
    assert said(found, "no eigenvalue. The reason: the measured Hessian was not finite.")
    assert not said(found, "first update")
    assert all(sentence.split(":")[0] in ("10", "50") for sentence in found.verdict)  # no place for either
    leaves(found)


@pytest.mark.parametrize("thaw", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_layers_that_are_frozen_or_thawed_are_measured(kind, thaw):
    estimator = small(net=Mlp, optimizer=kind, lr=0.02, max_epochs=6, callbacks=[("switch", Switching(thaw))])
    found = follow(estimator)
    assert np.isfinite([r["eigenvalue"] for r in found.records]).all()
    assert {r["reason"] for r in found.records} == {""}
    assert not said(found, "no eigenvalue")


class Tiny(Callback):
    """Begins with a tiny weight of an input that is always zero, whose only gradient is that of the decay."""

    def on_train_begin(self, net, **kwargs):
        with torch.no_grad():
            next(net.module_.parameters())[0, -1] = 1e-7


@pytest.mark.parametrize("decoupled", [False, True])
def test_decay_alone_is_the_reason_that_is_given(decoupled):
    rows = np.concatenate([X, np.zeros((len(X), 1), dtype=X.dtype)], axis=1)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    options = {"net": Mlp, "module__n_in": rows.shape[1], "optimizer": kind, "optimizer__weight_decay": 1.0}
    found = follow(small(callbacks=[("tiny", Tiny())], lr=0.01, **options), (rows, Y), at_updates=[0, 1])
    assert np.isnan([r["eigenvalue"] for r in found.records if r["n_updates"] == 0]).all()
    after = [r for r in found.records if r["n_updates"] == 1]
    assert np.isfinite([r["eigenvalue"] for r in after]).all() == decoupled
    if not decoupled:
        assert said(found, "The reasons: an adaptive optimiser", "first update (2); weight decay alone")
    assert found.settings["preconditioned"] == {"10": True, "50": True}
    leaves(found)


def test_a_measurement_that_raises_an_error_is_a_reason_too(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("sklgap.inspection._stability.measure_curvature", fail)
    with pytest.warns(UserWarning, match="out of memory"):
        found = follow(small(net=Mlp, **SGD))
    assert said(found, "4 records of 4 have no eigenvalue. The reason: the measurement failed")
    assert "stability" not in found.records[0]
    assert found.verdict[0].startswith("10: nothing could be measured. The reason: the measurement failed")
    leaves(found)


@pytest.mark.parametrize("threshold", ["optimizer", 3.0])
def test_where_nothing_could_be_measured_there_is_a_threshold_all_the_same(threshold):
    found = made(lines("LB", [math.nan] * 3, threshold=math.nan), labels=("LB",), threshold=threshold)
    assert found.verdict == ["LB: nothing could be measured. The reason: it diverged."]
    assert said(found, "3 records of 3", "no eigenvalue")
    without = made(lines("LB", [math.nan] * 3, threshold=math.nan), labels=("LB",), threshold=None)
    assert "no threshold" in without.verdict[0]


def test_samples_and_policy():
    found = follow(max_samples=20, batch_norm="population")
    assert found.settings["n_samples"] == 20
    assert said(found, "20 of the 50")
    assert said(found, "batch norm", "population")
    assert not said(follow(small(net=Mlp, **SGD)), "batch norm.")


def test_memory_loads_what_was_saved(tmp_path, monkeypatch):
    first = follow(memory=tmp_path)
    monkeypatch.setattr(TrainingNet, "train_step", None)
    monkeypatch.setattr("sklgap.experiments._stability_trajectory._probe", lambda *args: dict(_PROBED))
    assert follow(memory=tmp_path).records == first.records


_PROBED = {
    "batch_size": 10,
    "has_batch_norm": True,
    "criterion": "CrossEntropyLoss",
    "other_batches": [],
    "formula": "2 / lr",
    "preconditioned": False,
}


# In each trial 10 steps with batches of 10 samples, then 2 with one of 50.
@pytest.mark.parametrize(("step", "n_done"), [(11, 1), (13, 2)])
def test_ctrl_c_reports_what_had_finished(step, n_done, monkeypatch):
    monkeypatch.setattr("sklgap.experiments._stability_trajectory._probe", lambda *args: dict(_PROBED))
    found = follow(small(net=interrupting_at(step), **SGD), n_trials=2)
    assert found.interrupted
    assert sum(len(found.trials_of(label)) for label in found.labels) == n_done
    assert said(found, "Interrupted", str(n_done))
    leaves(found)


def test_ctrl_c_before_anything_has_finished(monkeypatch):
    monkeypatch.setattr("sklgap.experiments._stability_trajectory._probe", lambda *args: dict(_PROBED))
    with pytest.raises(KeyboardInterrupt):
        follow(small(net=interrupting_at(2), **SGD))


def test_the_cost_is_of_every_record(capsys):
    found = follow(small(net=Mlp, **SGD), verbose=1)
    assert "cost: 2 fits" in capsys.readouterr().out
    often = follow(small(net=Mlp, **SGD), verbose=1, at_updates=range(11))
    assert often.settings["cost"]["measure_seconds"][0] > found.settings["cost"]["measure_seconds"][0]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"estimator": small(optimizer=torch.optim.NAdam)}, "NAdam.*threshold=None"),
        ({"estimator": small(remedies=[("sam", SAM())], **SGD)}, "remedies.*SAM"),
        (
            {"estimator": small(callbacks=[("clip", GradientNormClipping(1.0))], **SGD)},
            "callbacks.*GradientNormClipping.*threshold=None",
        ),
        ({"estimator": small(train_split=ValidSplit(5), **SGD)}, "train_split=None"),
        ({"estimator": small(train_split=ValidSplit(5), **SGD), "threshold": None}, "train_split=None"),
        ({"regimes": {"split": {"train_split": ValidSplit(5)}}}, "train_split=None"),
        ({"threshold": "adam"}, "threshold"),
        ({"every": None}, "every and at_updates"),
        ({"n_eigenvalues": 0}, "n_eigenvalues"),
        ({"n_eigenvalues": 10**6}, "n_eigenvalues"),
        ({"n_eigenvalues": 3, "max_iter": 2}, "max_iter"),
        ({"tol": 2}, "tol"),
        ({"batch_norm": "x"}, "batch_norm"),
        ({"max_iter": 0}, "max_iter"),
    ],
)
def test_what_is_refused(given, match):
    with pytest.raises(ValueError, match=match) as caught:
        follow(**given)
    assert "\n" not in str(caught.value)


# -- what is said ------------------------------------------------------------------------------------------------------


def lines(label, relative, trial=0, threshold=2.0, **more):
    return [
        {
            **{"regime": label, "trial": trial, "seed": 1, "n_updates": 20 * (i + 1), "epoch": float(i)},
            **{"train_loss": 1.0, "eigenvalue": threshold * r, "threshold": threshold, "relative": r},
            **{"converged": 1.0, "n_products": 9.0, "learning_rate": 1.0},
            **{"reason": "it diverged" if math.isnan(r) else "", **more},
        }
        for i, r in enumerate(relative)
    ]


def made(records, labels=("SB", "LB"), interrupted=False, **settings):
    known = {
        "batch_size": dict.fromkeys(labels, 10) | {"LB": 100},
        "has_batch_norm": dict.fromkeys(labels, False),
        "criterion": dict.fromkeys(labels, "CrossEntropyLoss"),
        "other_batches": {label: [] for label in labels},
        "formula": dict.fromkeys(labels, "2 / lr"),
        "preconditioned": dict.fromkeys(labels, False),
    }
    common = {"n_train": 100, "n_samples": 100, "n_trials": 1, "n_eigenvalues": 1, "threshold": "optimizer"}
    common |= {"batch_norm": "batch", "tol": 1e-3}
    return StabilityTrajectory(records, list(labels), {**common, **known, **settings}, interrupted)


@pytest.mark.parametrize(
    ("relative", "begins"),
    [
        ([0.1, 0.5, 0.95, 1.2], "LB trains at the edge"),
        ([0.1, 0.9, 0.95, 0.4], "LB trains at the edge"),  # two of three records after half of the updates
        ([0.1, 1.0, 0.5, 0.4], "LB was at the edge of stability from update 40"),
        ([0.1, 0.89, 0.5, 0.4], "LB stays below"),
        ([0.1, 2.5, 2.6, 2.7], "LB stays far above the threshold"),
    ],
)
def test_where_a_regime_is(relative, begins):
    found = made([*lines("SB", [0.1, 0.2, 0.3, 0.2]), *lines("LB", relative)])
    assert found.verdict[0].startswith("SB stays below")
    assert found.verdict[1].startswith(begins)
    leaves(found)


@pytest.mark.parametrize("early", [[0.1, 0.2], [0.1, 1.5]])
def test_no_place_if_most_late_records_could_not_be_measured(early):
    nothing = [math.nan] * 5
    found = made([*lines("SB", [0.1] * 8), *lines("LB", [*early, 0.3, *nothing])])
    assert found.verdict[1].startswith("LB: its place relative to the edge of stability is not known")
    assert "5 records of 5 after half of its updates could not be measured" in found.verdict[1]
    assert found.verdict[1].endswith("The reason: it diverged.")
    assert math.isnan(found.share_at_edge("LB")[0])
    assert not any("edge of stability:" in sentence or "never" in sentence for sentence in found.verdict[1:])
    assert dict(zip(["", "SB", "LB"], found._table()[5], strict=True))["LB"] == "-"  # the eigenvalue at the end
    leaves(found)


def test_the_verdict_counts_measured_records_only():
    found = made(lines("LB", [0.1, 0.2, math.nan, 0.3, 0.4, 0.5, math.nan, 0.2]), labels=("LB",))
    assert found.verdict[0].startswith("LB is below the edge of stability where it could be measured")
    found = made(lines("LB", [0.1, 0.2, 0.3, 1.0, 1.0, 1.0, math.nan, 0.2]), labels=("LB",))
    assert "in 75 % of the 4 measured records after half of its updates" in found.verdict[0]
    early = lines("LB", [math.nan, 0.2, 0.3, 0.2])
    early[0]["n_updates"] = 0  # Adam before its first update
    assert "never" in made(early, labels=("LB",)).verdict[0]


def test_a_start_that_was_not_measured_is_not_replaced():
    found = made(lines("LB", [math.nan, 0.2, 0.3, 0.2]), labels=("LB",))
    assert found._table()[3] == ["largest eigenvalue at the start", "-"]


def test_shares_by_trial():
    records = [*lines("LB", [0.1, 0.5, 0.95, 1.2]), *lines("LB", [0.1, 0.95, 0.5, 0.5], trial=1)]
    found = made(records, labels=("LB",), n_trials=2)
    np.testing.assert_allclose(found.share_at_edge("LB"), [2 / 3, 1 / 3])
    np.testing.assert_allclose(found.first_at_edge("LB"), [60, 40])
    assert "50 ± 14" in str(found)


def test_the_first_updates_do_not_count():
    records = lines("LB", [3.0, 0.1, 0.2, 0.1])
    records[0]["n_updates"] = 3
    found = made(records, labels=("LB",))
    assert math.isnan(found.first_at_edge("LB")[0])
    assert "stays below" in found.verdict[0]


def test_notes():
    fell = [*lines("SB", [0.1] * 4), *lines("LB", [0.1, 1.0, 0.5, 0.4])]
    assert said(made(fell), "With smaller batches, noise", "SB")
    assert said(made(fell), "cross entropy", "LB")
    assert not said(made(fell, criterion={"SB": "MSELoss", "LB": "MSELoss"}), "cross entropy")
    assert said(made(fell, other_batches={"SB": [], "LB": ["Augmentation"]}), "Augmentation")
    assert said(made(fell, n_samples=50), "50 of the 100")
    assert said(made([*lines("SB", [0.1] * 4), *lines("LB", [0.1] * 4, converged=0.0)]), "4 of 8", "max_iter")
    nothing = lines("LB", [math.nan], threshold=math.nan)
    assert said(made([*lines("SB", [0.1] * 4), *nothing]), "1 record of 5 has no eigenvalue. The reason: it diverged.")
    assert "nothing could be measured" in made([*lines("SB", [0.1] * 4), *nothing]).verdict[1]


def test_batches_that_are_changed_are_named():
    found = follow(small(net=Mlp, remedies=[("noise", SampleNoise())], **SGD))
    assert said(found, "SampleNoise", "original samples")


def test_json_and_plot(real):
    content = json.loads(real.to_json())
    assert len(content["share_at_edge"]["10"]) == 2
    display = real.plot(ax=Figure().subplots())
    assert isinstance(display, StabilityTrajectoryDisplay)
    assert len(display.lines_) == 4  # two regimes, two trials
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), real.curves("10")[0].eigenvalues[:, 0])
    np.testing.assert_allclose(display.thresholds_[0].get_ydata(), 20)
    assert len(real.to_frame()) == len(real.records)
    leaves(real)
