"""Every regime with every remedy with every net: nothing in one may depend on another.

A new public part must enter the lists below. The default run takes a set of cases that holds all pairs.
"""

import inspect
import itertools
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklgap import LBGapClassifier, nets, regimes, remedies
from sklgap.remedies import (
    SAM,
    Adversarial,
    Augmentation,
    BatchAugmentation,
    EntropySGD,
    GradientPenalty,
    LabelSmoothing,
    Mixup,
    Proximal,
    Remedy,
    SampleNoise,
    Stability,
    check_remedies,
)
from tests.cases import no_global_random_numbers

SHAPE = (2, 6, 6)
N_ROWS = 30
FULLY_CONNECTED = {"module__n_layers": 2, "module__width": 6}
SHALLOW = {"module__n_filters": 2, "module__hidden": (5,)}
DEEP = {"module__stacks": ((2, 2), (3,)), "module__hidden": 4}
RESIDUAL = {"module__n_blocks": 1, "module__widths": (2, 3)}

# Each on tiny widths. SwitchBatch, GrowingBatch and DynamicSampling change in the second epoch.
NETS = {
    "F1": FULLY_CONNECTED,
    "F2": FULLY_CONNECTED,
    "C1": SHALLOW,
    "C3": SHALLOW,
    "C2": DEEP,
    "C4": DEEP,
    "ResNet44": RESIDUAL,
    "WRN16-4": {**RESIDUAL, "module__widening": 2},
}
REGIMES = {
    "SB": lambda: "SB",
    "LB": lambda: "LB",
    "ConstantBatch": lambda: regimes.ConstantBatch(0.3),
    "SwitchBatch": lambda: regimes.SwitchBatch(1, first=9, then=0.5),
    "GrowingBatch": lambda: regimes.GrowingBatch(8, every=1, largest=0.8),
    "DynamicSampling": lambda: regimes.DynamicSampling(8, theta=0.1, largest=0.8, max_growth=3.0),
}
REMEDIES = {
    "none": lambda: (),
    "both, named": lambda: (("move", Augmentation(flip=False)), ("pull", Proximal(0.01, 2))),
    "of rows": lambda: (Augmentation(), Adversarial(), SampleNoise(0.5)),
    "of weights": lambda: (Stability(), SAM(), Proximal(0.1, 1)),
    "walk": lambda: (EntropySGD(2),),
    "shorthands": lambda: ("asam", "samplenoise"),
    "of labels": lambda: (BatchAugmentation(Augmentation(), 2), Mixup(), LabelSmoothing(), SAM(every=2)),
    "of slopes": lambda: (GradientPenalty(0.1, 4),),
}
PARTS = (NETS, REGIMES, REMEDIES)
PRODUCT = list(itertools.product(*PARTS))


def _pairwise(*parts):
    """Every pair of the two longest lists, and the items of the shortest in turn: it meets every item of both."""
    order = sorted(range(3), key=lambda k: -len(parts[k]))
    longest, middle, shortest = (list(parts[k]) for k in order)
    cases = [(a, b, shortest[(i + j) % len(shortest)]) for i, a in enumerate(longest) for j, b in enumerate(middle)]
    return [tuple(case[order.index(k)] for k in range(3)) for case in cases]


PAIRWISE = _pairwise(*PARTS)


def _data():
    rng = np.random.default_rng(0)
    y = np.arange(N_ROWS) % 3
    return (rng.normal(size=(N_ROWS, *SHAPE)) + y[:, None, None, None]).astype(np.float32), np.array(["a", "b", "c"])[y]


def _model(net, regime, remedy):
    parts = {"batch_regime": REGIMES[regime](), "remedies": REMEDIES[remedy]()}
    return LBGapClassifier(net, **parts, **NETS[net], max_epochs=2, tol=None, random_state=0)


def _check(net, regime, remedy):
    X, y = _data()
    model = _model(net, regime, remedy)
    with no_global_random_numbers():
        model.fit(X, y)
    assert model.n_iter_ == 2
    assert np.isfinite(model.history_[:, "train_loss"]).all()
    assert model.history_[-1, "weight_distance"] > 0
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (N_ROWS, 3)
    assert np.allclose(probabilities.sum(1), 1)
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict_proba(X) == probabilities).all()
    assert (clone(model).fit(X, y).predict_proba(X) == probabilities).all()
    return model


def _pairs(cases):
    return {frozenset(pair) for case in cases for pair in itertools.combinations(enumerate(case), 2)}


def test_the_pairwise_cases_hold_every_pair():
    assert _pairs(PAIRWISE) == _pairs(PRODUCT)


@pytest.mark.parametrize(("net", "regime", "remedy"), PAIRWISE)
def test_pairwise(net, regime, remedy):
    _check(net, regime, remedy)


@pytest.mark.slow
@pytest.mark.parametrize(("net", "regime", "remedy"), [case for case in PRODUCT if case not in PAIRWISE])
def test_the_rest_of_the_product(net, regime, remedy):
    _check(net, regime, remedy)


def test_a_regime_and_a_remedy_do_something():
    X, y = _data()
    sizes = {regime: _model("F1", regime, "none").fit(X, y).history_[:, "batch_size"] for regime in REGIMES}
    assert sizes == {
        "SB": [8, 8],
        "LB": [3, 3],
        "ConstantBatch": [9, 9],
        "SwitchBatch": [9, 15],
        "GrowingBatch": [8, 16],
        "DynamicSampling": [8, 24],
    }
    losses = {_model("C1", "SB", remedy).fit(X, y).train_loss_ for remedy in REMEDIES}
    assert len(losses) == len(REMEDIES)


def test_grid_search_over_all_three():
    X, y = _data()
    grid = {"batch_regime__switch_epoch": [0, 1], "remedies__pull__proximal_lambda": [0.0, 0.1], "module__width": [4]}
    search = GridSearchCV(_model("F1", "SwitchBatch", "both, named"), grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_
    assert best.batch_regime.switch_epoch == search.best_params_["batch_regime__switch_epoch"]
    assert dict(best.remedies)["pull"].proximal_lambda == search.best_params_["remedies__pull__proximal_lambda"]
    assert (pickle.loads(pickle.dumps(search)).predict(X) == search.predict(X)).all()


class Weighted(Remedy):
    """Weights the rows of every batch, as multiplicative noise does."""

    def transform_batch(self, batch, rng):
        return batch._replace(weight=torch.ones(len(batch.X)))


def test_a_remedy_may_weigh_the_rows():
    X, y = _data()
    models = [_model("F1", "SB", "none").set_params(remedies=r, max_epochs=1) for r in ((), (Weighted(),))]
    losses = [model.fit(X, y).train_loss_ for model in models]
    # float32: the mean of products with one.
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# -- the lists are complete ------------------------------------------------------------------------------------------


def _public(package, base):
    classes = (getattr(package, name) for name in package.__all__)
    return {c.__name__ for c in classes if inspect.isclass(c) and issubclass(c, base) and c is not base}


def test_every_net_is_here():
    assert set(nets.NETS) == set(NETS)
    # The families that the papers' nets are members of, and a layer.
    families = {base.__name__ for net in nets.NETS.values() for base in net.__mro__[1:]}
    assert _public(nets, nn.Module) - families - {"GhostBatchNorm"} == {net.__name__ for net in nets.NETS.values()}


def test_every_regime_is_here():
    assert _public(regimes, regimes.BatchRegime) <= set(REGIMES)


def test_every_remedy_is_here():
    used = {type(remedy).__name__ for make in REMEDIES.values() for _, remedy in check_remedies(make())}
    assert _public(remedies, Remedy) == used
