import time

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from sklgap import TrainingRecorder
from sklgap.experiments._cost import Cost, between, duration, measure_cost
from sklgap.experiments._protocol import Measuring
from tests.tiny import Mlp, blobs, images, interrupting_at, small

X, Y = blobs(60)
MEASURING = Measuring((1e-3, 1e-2), (None, 2), "batch", "auto", np.arange(30))


class Slow(Mlp):
    """Takes 4 ms for each training step."""

    def forward(self, X):
        if self.training:
            time.sleep(0.004)
        return super().forward(X)


def cost(model, parameters, measuring=MEASURING, data=(X, Y), **more):
    return measure_cost(model, parameters, 3, data, n_evaluated=10, measuring=measuring, **more)


def test_updates_and_fits():
    found = cost(
        small(max_epochs=5),
        {
            "10": {"batch_size": 10},
            "40": {"batch_size": 40},
            "20": {"batch_size": 20, "regime_adaptation": True, "base_batch_size": 10},
        },
        n_more_fits=2,
    )
    assert found.labels == ["10", "40", "20"]
    # Five epochs of 6 and of 2 batches; with regime adaptation, as many as batches of 10 make.
    assert found.updates == [30, 10, 30]
    assert found.n_fits == [5, 5, 5]
    assert "15 fits, at most 350 updates" in str(found)


def test_updates_are_those_that_fits_make():
    parameters = {
        "plain": {"batch_size": 7},
        "adapted": {"batch_size": 50, "regime_adaptation": True, "base_batch_size": 7},
        "proximal": {"batch_size": 20, "proximal_lambda": 0.1},
    }
    for own in parameters.values():
        assert cost(small(max_epochs=3), {"own": own}).updates == [small(max_epochs=3, **own).fit(X, Y).n_updates_]


def test_time_of_training_is_steps_times_updates():
    found = cost(small(net=Slow, max_epochs=5), {"10": {"batch_size": 10}, "30": {"batch_size": 30}}, n_more_fits=1)
    expected = sum(4 * n * seconds for n, seconds in zip(found.updates, found.step_seconds, strict=True))
    assert found.fit_seconds == pytest.approx(expected)
    assert all(0.004 <= seconds < 0.5 for seconds in found.step_seconds)


def test_time_of_a_real_fit():
    """The step sleeps 4 ms: an estimate far from the time of the fit would be of something else."""
    model = small(net=Slow, max_epochs=5, batch_size=10)
    model.fit(X, Y)
    assert model.net_.n_updates_ == 30
    trained = sum(row["dur"] for row in model.history_)
    # Half and twice on an idle machine would be safe; the machine may be busy during one and not during the other.
    assert trained / 4 < cost(model, {"10": {}}).fit_seconds / 3 < 4 * trained


def test_fits_at_once_share_the_time():
    found = cost(small(), {"10": {}}, n_jobs=2)
    assert found.seconds == tuple((found.fit_seconds + seconds) / 2 for seconds in found.measure_seconds)
    assert "if 2 fits at the same time are as fast as one" in str(found)


def test_measuring_grows_with_what_is_measured():
    none = Measuring((), (), "batch", "auto", np.arange(30))
    images_, labels = images(400, side=16)
    model, data = small(net="C1", batch_size=50), (images_, labels)
    less, more = (cost(model, {"50": {}}, m, data) for m in (none, MEASURING))
    assert more.measure_seconds[0] > 3 * less.measure_seconds[0] > 0
    assert less.measure_seconds[0] == less.measure_seconds[1]
    assert more.measure_seconds[0] < more.measure_seconds[1]


def test_nothing_is_changed_or_cached(tmp_path):
    recorder = TrainingRecorder({"train": (X, Y)})
    model = small(callbacks=[("recorder", recorder)], batch_size=10)
    before = repr(model.get_params())
    cost(model, {"10": {}})
    assert repr(model.get_params()) == before
    assert not hasattr(model, "net_")


def test_a_pipeline_is_transformed_once(monkeypatch):
    calls = []
    original = PCA.fit_transform
    monkeypatch.setattr(PCA, "fit_transform", lambda self, X, y=None: calls.append(len(X)) or original(self, X, y))
    cost(make_pipeline(PCA(2), small()), {"10": {"batch_size": 10}, "30": {"batch_size": 30}})
    assert calls == [60]


def test_ctrl_c_is_not_taken_for_the_timer():
    with pytest.raises(KeyboardInterrupt):
        cost(small(net=interrupting_at(1)), {"10": {}})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "0.012 s"), (9.94, "9.9 s"), (119, "119 s"), (120, "2.0 min"), (3000, "50 min"), (7200, "2.0 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_narrow_range_is_one_duration():
    assert (between(10, 11), between(10, 40)) == ("11 s", "10 s to 40 s")


def test_print():
    labels = ["batches of 256", "batches of 1,024"]
    found = Cost(labels, [0.002, 0.01], [2000, 500], [5, 5], 45.0, (15.0, 75.0), 1)
    lines = str(found).splitlines()
    for words in ("10 fits", "12,500 updates", "60 s to 2.0 min", "training 45 s", "measuring 15 s to 75 s"):
        assert words in lines[0]
    assert len(lines) == 3
    for line, label, words in zip(lines[1:], labels, ("2,000 updates, 2 ms", "500 updates, 10 ms"), strict=True):
        assert label in line
        assert f"5 fits of {words}" in line


def test_losses_alone():
    """Nothing is measured but losses: no search for a maximum, which takes from here to there."""
    found = cost(small(), {"10": {"batch_size": 10}}, None)
    assert found.measure_seconds[0] == found.measure_seconds[1] > 0


def test_a_fit_that_is_measured_several_times():
    one, three = (cost(small(), {"10": {"batch_size": 10}}, n_records=n) for n in (1, 3))
    assert three.measure_seconds[1] > one.measure_seconds[1]
    assert three.n_fits == one.n_fits
