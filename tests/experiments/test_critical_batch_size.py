import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import LBGapClassifier, TrainingRecorder
from sklgap.experiments import critical_batch_size, steps_to_loss
from sklgap.experiments._critical_batch_size import minimal_work
from sklgap.experiments._recorded_training import first_reached
from sklgap.inspection import gradient_noise_scale, recorded
from sklgap.objective import check_objective
from sklgap.regimes import SwitchBatch
from sklgap.training._recorder import log_spaced_updates
from tests.cases import no_global_random_numbers
from tests.tiny import Mlp, blobs, small

X, Y = blobs(80)
TARGET = 0.3
QUIET = {"random_state": 0, "verbose": 0}


def mlp(**params):
    """Return a net without batch norm, trained by plain gradient steps."""
    return LBGapClassifier(
        Mlp, **{"optimizer": torch.optim.SGD, "lr": 0.05, "batch_size": 8, "max_epochs": 60} | params
    )


# -- the integrals -------------------------------------------------------------------------------------------------


def _record(n_updates, noise_scale, size, signal=2.0):
    n_updates = np.asarray(n_updates, dtype=float)
    square = np.full(len(n_updates), signal)
    trace = square * np.broadcast_to(noise_scale, square.shape)
    return {
        "n_updates": n_updates,
        "noise_trace": trace,
        "noise_squared_gradient_norm": square,
        "noise_batch_size": np.broadcast_to(float(size), square.shape),
    }


@pytest.mark.parametrize("size", [1, 16, 1000])
@pytest.mark.parametrize("noise_scale", [0.0, 3.0, 500.0])
def test_a_constant_noise_scale_is_the_critical_batch_size(noise_scale, size):
    steps, examples = minimal_work(_record([0, 1, 10, 100], noise_scale, size), 70)
    assert steps == pytest.approx(70 / (1 + noise_scale / size))
    assert examples == pytest.approx(noise_scale * steps)
    # The trade-off of these two says that the training itself takes 70 updates.
    assert steps + examples / size == pytest.approx(70)


def test_a_varying_noise_scale_is_averaged_over_steps_without_noise():
    t = np.linspace(0, 200, 4001)
    noise_scale = 5 + t
    steps, examples = minimal_work(_record(t, noise_scale, 16), 150)
    until = np.linspace(0, 150, 200_001)
    progress = 1 / (1 + (5 + until) / 16)
    assert steps == pytest.approx(np.trapezoid(progress, until), rel=1e-5)
    assert examples == pytest.approx(np.trapezoid((5 + until) * progress, until), rel=1e-5)


def test_gradients_lost_in_noise_and_measurements_that_failed():
    record = _record([0, 10, 20, 30], 8.0, 16)
    expected = minimal_work(record, 30)
    # A point without signal makes no progress, and uses up the rows of its steps.
    record["noise_squared_gradient_norm"][3] = 0.0
    steps, examples = minimal_work(record, 30)
    assert steps == pytest.approx(expected[0] - 5 / (1 + 8 / 16))
    assert examples == pytest.approx(expected[1] + 5 * (16 - 8 / (1 + 8 / 16)))
    failed = _record([0, 10, 15, 20, 30], 8.0, 16)
    failed["noise_trace"][2] = np.nan
    assert minimal_work(failed, 30) == pytest.approx(expected)


def test_when_a_loss_is_first_reached():
    n_updates, loss = np.array([0, 10, 20, 40]), np.array([2.0, 1.0, 0.4, 0.8])
    assert first_reached(n_updates, loss, 1.0) == 10
    assert first_reached(n_updates, loss, 0.7) == pytest.approx(15)
    assert first_reached(n_updates, loss, 3.0) == 0
    assert math.isnan(first_reached(n_updates, loss, 0.3))
    assert first_reached(n_updates, np.array([2.0, np.nan, 0.4, 0.8]), 0.5) == 20


def test_points_in_time():
    points = [0, *log_spaced_updates(4)]
    assert points[:8] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [p for p in points if p in (8, 16, 32, 64)] == [8, 16, 32, 64]
    assert np.max(np.array(points[9:]) / points[8:-1]) < 2**0.25 + 0.07


# -- the critical batch size ---------------------------------------------------------------------------------------


def test_it_is_the_integral_of_what_was_measured_and_its_interval_is_over_trials():
    found = critical_batch_size(mlp(), X, Y, target_loss=TARGET, n_trials=3, n_batches=8, **QUIET)
    sums = []
    for trial, end in zip(found.trials, found.n_updates, strict=True):
        assert first_reached(trial["n_updates"], trial["loss"], TARGET) == end < trial["n_updates"][-1]
        trace, square = trial["trace"], trial["squared_gradient_norm"]
        expected = np.where(square > 0, trace / np.where(square > 0, square, 1), np.inf)
        np.testing.assert_allclose(trial["noise_scale"], expected)
        t = np.linspace(0, end, 100_001)
        progress = np.interp(t, trial["n_updates"], 8 * square / (8 * square + trace))
        work = np.interp(t, trial["n_updates"], 8 * trace / (8 * square + trace))
        sums.append([np.trapezoid(progress, t), np.trapezoid(work, t)])
    steps, examples = np.array(sums).T
    assert found.min_steps == pytest.approx(steps.mean(), rel=1e-3)
    assert found.min_examples == pytest.approx(examples.mean(), rel=1e-3)
    inverse = stats.ttest_1samp(steps / examples, 0).confidence_interval(0.95)
    assert found.critical_batch_size == pytest.approx(1 / np.mean(steps / examples), rel=1e-3)
    assert found.low == pytest.approx(1 / inverse.high, rel=0.01)
    assert found.high == pytest.approx(1 / inverse.low if inverse.low > 0 else np.inf, rel=0.01)
    assert (found.batch_size, found.target_loss, found.batch_norm, len(found.trials)) == (8, TARGET, "batch", 3)


def test_the_noise_is_that_of_the_weights_then():
    found = critical_batch_size(mlp(max_epochs=2, tol=None), X, Y, n_trials=1, n_batches=50, **QUIET)
    trial = found.trials[0]
    seed = int(np.random.RandomState(0).randint(2**31 - 1, size=1)[0])
    model = mlp(max_epochs=2, tol=None, random_state=seed).fit(X, Y)
    assert trial["n_updates"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 16, 19, 20]
    assert model.n_updates_ == 20 == found.n_updates[0]
    exact = gradient_noise_scale(model, X, Y)
    own = gradient_noise_scale(
        model, X, Y, method="batches", batch_size=8, n_batches=50, max_samples=80, random_state=(seed + 20) % 2**32
    )
    assert trial["trace"][-1] == pytest.approx(own.trace, rel=1e-6)
    assert trial["squared_gradient_norm"][-1] == pytest.approx(own.squared_gradient_norm, rel=1e-6)
    assert abs(trial["trace"][-1] - exact.trace) < 4 * own.trace_standard_error
    difference = abs(trial["squared_gradient_norm"][-1] - exact.squared_gradient_norm)
    assert difference < 4 * own.squared_gradient_norm_standard_error
    assert trial["loss"][-1] == pytest.approx(check_objective(model, X, Y).value(), rel=1e-6)
    # One trial has no interval, and says so.
    assert (found.low, found.high) == (0, np.inf)
    assert "no interval from one trial" in str(found)
    assert found.target_loss is None


def test_repeatable_and_the_estimator_stays_as_it_was():
    recorder = TrainingRecorder()
    estimator = small(batch_size=10, max_epochs=3, callbacks=[("own", recorder)])
    with no_global_random_numbers():
        first, again = (
            critical_batch_size(estimator, X, Y, n_trials=2, n_batches=5, random_state=3, verbose=0) for _ in range(2)
        )
    assert str(first) == str(again)
    other = critical_batch_size(estimator, X, Y, n_trials=2, n_batches=5, random_state=4, verbose=0)
    assert first.critical_batch_size != other.critical_batch_size
    assert not hasattr(estimator, "net_")
    assert estimator.callbacks == [("own", recorder)]
    assert not hasattr(recorder, "records_")


@pytest.mark.slow
def test_workers_change_nothing():
    options = {"n_trials": 2, "n_batches": 5, **QUIET}
    one, two = (critical_batch_size(mlp(max_epochs=2), X, Y, n_jobs=jobs, **options) for jobs in (None, 2))
    assert str(one) == str(two)
    options = {"batch_sizes": [4, 8], "target_loss": 1.0, "n_trials": 2, **QUIET}
    one, two = (steps_to_loss(mlp(), X, Y, n_jobs=jobs, **options) for jobs in (None, 2))
    assert str(one) == str(two)


def test_pipelines_labels_and_regimes():
    names = np.array(["a", "b", "c"])[Y]
    options = {"n_trials": 1, "n_batches": 5, "target_loss": 1.0, **QUIET}
    regime = SwitchBatch(switch_epoch=1, first=8, then=16)
    inner = mlp(batch_size=None, batch_regime=regime)
    found = critical_batch_size(make_pipeline(StandardScaler(), inner), X, names, **options)
    direct = critical_batch_size(inner, StandardScaler().fit_transform(X), names, **options)
    assert str(found) == str(direct)
    assert found.batch_size == 8


def test_a_target_that_is_not_reached():
    with pytest.warns(ConvergenceWarning, match="A trial did not reach target_loss=1e-09"):
        found = critical_batch_size(mlp(max_epochs=2), X, Y, target_loss=1e-9, n_trials=1, n_batches=4, **QUIET)
    assert found.n_updates.tolist() == [20]


def test_progress_goes_to_stderr(capsys):
    critical_batch_size(mlp(max_epochs=1), X, Y, n_trials=1, n_batches=4, random_state=0)
    out, err = capsys.readouterr()
    assert (out, "1/1" in err) == ("", True)


# -- steps to a loss -----------------------------------------------------------------------------------------------


def test_the_steps_are_those_after_which_the_loss_is_there():
    found = steps_to_loss(mlp(), X, Y, batch_sizes=[4, 0.2], target_loss=TARGET, n_trials=2, max_samples=None, **QUIET)
    assert found.batch_sizes.tolist() == [4, 16]
    seeds = np.random.RandomState(0).randint(2**31 - 1, size=2)
    for size, of_size in zip((4, 16), found.n_steps, strict=True):
        for seed, steps in zip(seeds, of_size, strict=True):
            points = [0, *log_spaced_updates(8)]
            before = max(p for p in points if p < steps)
            after = min(p for p in points if p >= steps)
            recorder = TrainingRecorder({"all": (X, Y)}, at_updates=[before, after], every=None)
            model = mlp(batch_size=size, random_state=int(seed), max_epochs=20, callbacks=[("curve", recorder)])
            losses = recorded(model.set_params(tol=None).fit(X, Y))["all_loss"]
            assert losses[0] > TARGET >= losses[1]
            assert steps == pytest.approx(
                before + (after - before) * (losses[0] - TARGET) / (losses[0] - losses[1]), rel=1e-6
            )
    assert found.tradeoff.n_measurements == 4
    assert np.isnan(found.learning_rates).all()
    assert "batches of      4" in str(found)


def test_the_best_learning_rate_of_each_size_counts():
    rates = [0.01, 0.1, 1.0]
    options = {"batch_sizes": [8, 40], "target_loss": 0.7, "n_trials": 2, **QUIET}
    found = steps_to_loss(mlp(max_epochs=100), X, Y, learning_rates=rates, **options)
    each = np.array([steps_to_loss(mlp(max_epochs=100, lr=r), X, Y, **options).n_steps for r in rates])
    best = each.mean(axis=2).argmin(axis=0)
    assert found.learning_rates.tolist() == [rates[i] for i in best]
    np.testing.assert_array_equal(found.n_steps, [each[i, k] for k, i in enumerate(best)])
    assert "learning rate" in str(found)


def test_a_batch_size_that_does_not_get_there():
    found = steps_to_loss(
        mlp(max_epochs=12, tol=None), X, Y, batch_sizes=[2, 4, 80], target_loss=0.5, n_trials=2, **QUIET
    )
    assert np.isfinite(found.n_steps[:2]).all()
    assert np.isnan(found.n_steps[2]).all()
    assert "not reached" in str(found)


def test_what_was_measured_is_kept_where_no_trade_off_can_be_fitted():
    found = steps_to_loss(mlp(max_epochs=1), X, Y, batch_sizes=[40, 80], target_loss=1e-3, n_trials=1, **QUIET)
    assert found.n_steps.shape == (2, 1)
    assert found.tradeoff is None
    assert "no trade-off: fewer than two batch sizes reached the loss" in str(found)


@pytest.mark.slow
def test_prediction_and_measurement_agree_within_an_order_of_magnitude():
    """McCandlish et al. (2018), Figure 5, claim no more."""
    digits, labels = load_digits(return_X_y=True)
    digits = digits / 16
    model = LBGapClassifier(
        Mlp, module__n_in=64, module__n_out=10, module__width=32, optimizer=torch.optim.SGD, lr=0.3, max_epochs=300
    )
    predicted = critical_batch_size(model.set_params(batch_size=16), digits, labels, target_loss=0.5, **QUIET)
    measured = steps_to_loss(
        model.set_params(batch_size=None),
        digits,
        labels,
        batch_sizes=[8, 32, 128, 512, 1797],
        target_loss=0.5,
        learning_rates=[0.1, 0.3, 1.0],
        n_trials=2,
        **QUIET,
    )
    assert measured.tradeoff.scatter < 0.5
    ratio = predicted.critical_batch_size / measured.tradeoff.critical_batch_size
    assert 0.1 < ratio < 10


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_loss", [0, -1, np.inf, np.nan, "0.1", True])
def test_bad_target_loss(target_loss):
    with pytest.raises(ValueError, match="target_loss must be a number above 0; got"):
        critical_batch_size(mlp(), X, Y, target_loss=target_loss)
    with pytest.raises(ValueError, match="target_loss must be a number above 0; got"):
        steps_to_loss(mlp(), X, Y, batch_sizes=[4, 8], target_loss=target_loss)


@pytest.mark.parametrize("n_trials", [0, 1.5, True, None])
def test_bad_n_trials(n_trials):
    with pytest.raises(ValueError, match="n_trials must be an integer of at least 1; got"):
        critical_batch_size(mlp(), X, Y, n_trials=n_trials)
    with pytest.raises(ValueError, match="n_trials must be an integer of at least 1; got"):
        steps_to_loss(mlp(), X, Y, batch_sizes=[4, 8], target_loss=1.0, n_trials=n_trials)


def test_a_target_above_the_start():
    with pytest.raises(ValueError, match=r"target_loss must be below the loss at the start, .*; got 50"):
        critical_batch_size(mlp(max_epochs=1), X, Y, target_loss=50, n_trials=1, n_batches=4, **QUIET)


def test_bad_n_batches():
    with pytest.raises(ValueError, match="n_batches must be an integer of at least 4; got 3"):
        critical_batch_size(mlp(), X, Y, n_batches=3)


def test_bad_batch_norm():
    with pytest.raises(ValueError, match="batch_norm must be one of"):
        critical_batch_size(mlp(), X, Y, batch_norm="none")
    with pytest.raises(ValueError, match="batch_norm must be one of"):
        steps_to_loss(mlp(), X, Y, batch_sizes=[4, 8], target_loss=1.0, batch_norm="none")


def test_bad_max_samples():
    with pytest.raises(ValueError, match="max_samples must be None, an integer of at least 1 or a float"):
        critical_batch_size(mlp(), X, Y, max_samples=0)


def test_batches_of_all_rows_have_no_noise():
    with pytest.raises(ValueError, match="batch_size must be an integer from 1 to 79; got 80"):
        critical_batch_size(mlp(batch_size=-1), X, Y, **QUIET)


@pytest.mark.parametrize("batch_sizes", [[], 8, None, [[4, 8]], [4], [4, 4], [4, 0.05], [4, 0], [4, "8"]], ids=str)
def test_bad_batch_sizes(batch_sizes):
    with pytest.raises(ValueError, match="batch_sizes must"):
        steps_to_loss(mlp(), X, Y, batch_sizes=batch_sizes, target_loss=1.0)


@pytest.mark.parametrize("learning_rates", [[], 0.1, [0.1, 0], [np.inf], ["a"], [[0.1]]], ids=str)
def test_bad_learning_rates(learning_rates):
    with pytest.raises(ValueError, match="learning_rates must be None or a sequence of numbers above 0; got"):
        steps_to_loss(mlp(), X, Y, batch_sizes=[4, 8], target_loss=1.0, learning_rates=learning_rates)
