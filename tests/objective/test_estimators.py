from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklgap.objective import check_objective
from sklgap.objective._estimators import final_estimator, module_of, net_of, parameter_prefix, through_head
from tests.tiny import Mlp, blobs, small

X, Y = blobs()


def _search(estimator, **options):
    return GridSearchCV(estimator, {}, cv=2, **options)


# What a user holds, and the way to its end.
WRAPPED = {
    "alone": (lambda e: e, lambda w: w),
    "pipeline": (lambda e: make_pipeline(StandardScaler(), e), lambda w: w[-1]),
    "pipeline of one step": (make_pipeline, lambda w: w[-1]),
    "nested pipelines": (
        lambda e: make_pipeline(StandardScaler(), make_pipeline(MinMaxScaler(), e)),
        lambda w: w[-1][-1],
    ),
    "search": (_search, lambda w: w.best_estimator_),
    "search over a pipeline": (lambda e: _search(make_pipeline(StandardScaler(), e)), lambda w: w.best_estimator_[-1]),
    "pipeline that ends in a search": (
        lambda e: make_pipeline(StandardScaler(), _search(e)),
        lambda w: w[-1].best_estimator_,
    ),
}


def _net(**options):
    return NeuralNetClassifier(Mlp, max_epochs=1, train_split=None, criterion=nn.CrossEntropyLoss, verbose=0, **options)


ESTIMATORS = {"ours": small, "skorch": _net}


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("name", WRAPPED)
def test_the_end_of_an_estimator(name, kind):
    wrap, end = WRAPPED[name]
    fitted = wrap(ESTIMATORS[kind]()).fit(X, Y.astype(np.int64))
    last = end(fitted)
    assert final_estimator(fitted) is last
    assert net_of(fitted) is (last.net_ if kind == "ours" else last)
    assert module_of(fitted) is last.module_


@pytest.mark.parametrize("name", WRAPPED)
def test_X_as_the_final_estimator_gets_it(name):
    wrap, end = WRAPPED[name]
    fitted = wrap(small()).fit(X, Y)
    seen = through_head(fitted, X)
    assert (end(fitted).predict(seen) == fitted.predict(X)).all()
    assert check_objective(fitted, X, Y).value() == check_objective(end(fitted), seen, Y).value()
    assert ("pipeline" in name and name != "pipeline of one step") == (seen is not X)


@pytest.mark.parametrize("name", ["alone", "pipeline", "pipeline of one step", "nested pipelines"])
def test_the_prefix_sets_parameters_of_the_final_estimator(name):
    wrap, end = WRAPPED[name]
    estimator = wrap(small())
    estimator.set_params(**{f"{parameter_prefix(estimator)}batch_size": 7})
    assert end(estimator).batch_size == 7


@pytest.mark.parametrize("name", WRAPPED)
def test_what_is_not_fitted_has_no_net(name):
    for estimator in (small(), _net()):
        for read in (net_of, module_of):
            with pytest.raises(NotFittedError, match="is not fitted yet, or was not refitted"):
                read(WRAPPED[name][0](estimator))


def test_a_search_that_was_not_refitted():
    search = _search(small(), refit=False).fit(X, Y)
    assert final_estimator(search) is search
    with pytest.raises(NotFittedError, match="GridSearchCV is not fitted yet, or was not refitted"):
        net_of(search)


def test_a_number_of_steps_is_no_pipeline():
    class Stepped(Mlp):
        steps = 3

    net = NeuralNetClassifier(Stepped, criterion=nn.CrossEntropyLoss, verbose=0).initialize()
    net.steps = 3
    assert final_estimator(net) is net
    assert through_head(net, X) is X
    assert parameter_prefix(net) == ""
    assert check_objective(net, X, Y).value() == check_objective((net.module_, nn.CrossEntropyLoss()), X, Y).value()


def test_a_stream_passes_steps_that_do_not_transform_only():
    data = torch.utils.data.TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
    for steps in ([], [("a", "passthrough")], [("a", SimpleNamespace(fit_resample=None)), ("b", None)]):
        assert through_head(SimpleNamespace(steps=[*steps, ("net", None)]), data) is data
    with pytest.raises(TypeError, match="X must be an array for a pipeline whose steps transform it"):
        through_head(make_pipeline(StandardScaler(), small()), data)


@pytest.mark.parametrize(
    "thing", [3, "net", LogisticRegression(), make_pipeline(LogisticRegression()), (1, 2)], ids=repr
)
def test_what_has_no_module(thing):
    with pytest.raises(TypeError, match="start must be a torch module, a fitted LBGapClassifier or skorch net"):
        module_of(thing, "start")


def test_a_module_and_a_pair_are_taken_as_they_are():
    module = Mlp()
    assert module_of(module) is module
    assert module_of((module, nn.CrossEntropyLoss())) is module
