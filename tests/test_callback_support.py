"""scikit-learn's own callbacks on the estimator."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.tiny import Mlp, TinyF1, blobs, same_weights, small

pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9 has no callbacks")

X, Y = blobs()


class Record:
    """Notes the tasks it is told of, and how good the estimator is at their ends."""

    def __init__(self, stop=None, fail=None):
        self.stop, self.fail = stop, fail
        self.calls, self.scores, self.fitted = [], [], []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        assert len(X) == len(y)
        self.calls.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.calls.append(f"end {context.task_name}")
        if context.task_name == self.fail:
            raise RuntimeError(f"in {context.task_name}")
        if context.task_name.startswith("epoch"):
            self.scores.append(fitted_estimator.score(X, y))
            self.fitted.append(fitted_estimator)
        return context.task_name == self.stop


@pytest.mark.parametrize("net", [Mlp, TinyF1])
def test_every_epoch_is_a_task_and_scored_as_if_the_fit_ended_there(net):
    record = Record()
    model = small(net=net, max_epochs=3).set_callbacks(record).fit(X, Y)
    epochs = [f"{what} epoch {i}" for i in (1, 2, 3) for what in ("begin", "end")]
    assert record.calls == ["setup", "begin fit", *epochs, "end fit", "teardown"]
    assert same_weights(model, small(net=net, max_epochs=3).fit(X, Y))
    for epoch, (score, fitted) in enumerate(zip(record.scores, record.fitted, strict=True), start=1):
        shorter = small(net=net, max_epochs=epoch).fit(X, Y)
        assert score == shorter.score(X, Y)
        np.testing.assert_array_equal(fitted.predict_proba(X), shorter.predict_proba(X))
        assert fitted.n_iter_ == epoch


def test_a_callback_stops_the_training():
    model = small(max_epochs=9, tol=1e-9).set_callbacks(Record(stop="epoch 2")).fit(X, Y)
    assert model.n_iter_ == 2
    assert not model.converged_


def test_epochs_beyond_max_epochs_are_tasks_too():
    record = Record()
    model = small(max_epochs=2, batch_size=-1, base_batch_size=20, regime_adaptation=True).set_callbacks(record)
    assert model.fit(X, Y).n_iter_ == len(record.scores) > 2


def test_a_callback_that_fails_at_the_end_loses_nothing():
    model = small().set_callbacks(Record(fail="fit"))
    with pytest.raises(RuntimeError, match="in fit"):
        model.fit(X, Y)
    assert same_weights(model, small().fit(X, Y))


def test_one_that_fails_before_leaves_the_estimator_as_it_was():
    record = Record(fail="epoch 1")
    model = small().set_callbacks(record)
    with pytest.raises(RuntimeError, match="in epoch 1"):
        model.fit(X, Y)
    assert record.calls[-1] == "teardown"
    assert not hasattr(model, "net_")
    record.fail = None
    assert model.fit(X, Y).n_iter_ == 2


def test_weights_of_samples_are_told():
    from sklearn.callback import ScoringMonitor

    class Weights(Record):
        def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
            told.append(metadata)

    told = []
    weight = np.arange(len(Y)) % 3
    small().set_callbacks(Weights(), ScoringMonitor(scoring="accuracy")).fit(X, Y, sample_weight=weight)
    assert len(told) == 3  # the fit, and two epochs
    assert all(metadata["sample_weight"] is weight for metadata in told)


def test_nothing_of_it_stays_on_the_net():
    model = small(warm_start=True).set_callbacks(Record()).fit(X, Y)
    assert "epoch_tasks" not in dict(model.net_.callbacks_)
    assert model.fit(X, Y).n_iter_ == 4


def test_memory_saves_no_fit_that_callbacks_may_stop(tmp_path):
    for record in (Record(), Record()):
        with pytest.warns(UserWarning, match="memory does not save a fit with scikit-learn's callbacks"):
            small(memory=tmp_path).set_callbacks(record).fit(X, Y)
        assert "end epoch 2" in record.calls
    assert not list(tmp_path.glob("*.*"))


def test_in_pipelines_searches_and_clones():
    from sklearn.callback import ScoringMonitor

    model = small()
    monitor = ScoringMonitor(scoring="accuracy")
    assert clone(model.set_callbacks(monitor)).fit(X, Y).n_iter_ == 2
    pipeline = make_pipeline(StandardScaler(), small()).set_callbacks(ScoringMonitor(scoring="accuracy"))
    assert np.isfinite(pipeline.fit(X, Y).score(X, Y))
    search = GridSearchCV(small(), {"max_epochs": [1, 2]}, cv=2).set_callbacks(ScoringMonitor(scoring="accuracy"))
    assert search.fit(X, Y).best_estimator_.n_iter_ in (1, 2)
