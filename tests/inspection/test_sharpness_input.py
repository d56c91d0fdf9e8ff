"""What `sharpness` measures, what it leaves alone and what it refuses."""

import copy
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklgap.inspection import sharpness
from sklgap.inspection._sharpness import SOLVERS
from sklgap.objective import Objective, random_subspace
from tests.cases import PROBLEMS, no_global_random_numbers
from tests.inspection.sharp_nets import objective_of, quiet_sharpness
from tests.landscapes import landscape, linear
from tests.tiny import Mlp, blobs, small

# -- what can be measured ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    X, y = blobs(40)
    return small().fit(X, y), X, y


def _options(**kwargs):
    return {"epsilon": 0.01, "max_iter": 4, "random_state": 0, **kwargs}


def test_every_kind_of_input_gives_the_same_value(fitted):
    model, X, y = fitted
    encoded = torch.from_numpy(y)
    expected = sharpness(model, X, y, **_options())
    pair = (model.module_, nn.CrossEntropyLoss())
    for estimator in (model.net_, pair):
        found = sharpness(estimator, X, y, **_options())
        assert found.value == expected.value
        np.testing.assert_array_equal(found.argmax, expected.argmax)
    assert sharpness(Objective(*pair, (X, encoded)), **_options()).value == expected.value
    assert sharpness(model, X.tolist(), y.tolist(), **_options()).value == expected.value
    assert sharpness(model, torch.from_numpy(X), encoded, **_options()).value == expected.value


def test_a_pipeline_and_a_search_measure_what_their_classifier_sees(fitted):
    _, X, y = fitted
    pipeline = make_pipeline(StandardScaler(), small()).fit(X, y)
    scaled = pipeline[0].transform(X)
    expected = sharpness(pipeline[-1], scaled, y, **_options()).value
    assert sharpness(pipeline, X, y, **_options()).value == expected
    search = GridSearchCV(pipeline, {"lbgapclassifier__lr": [0.01]}, cv=2).fit(X, y)
    assert sharpness(search, X, y, **_options()).value == expected


def test_a_skorch_net_that_is_not_ours(fitted):
    _, X, y = fitted
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = NeuralNetClassifier(Mlp, criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0)
        net.fit(X, y)
    expected = sharpness((net.module_, nn.CrossEntropyLoss()), X, y, **_options())
    found = sharpness(net, X, y, **_options())
    assert found.value == pytest.approx(expected.value, rel=1e-6)


def test_labels_that_are_strings(fitted):
    model, X, y = fitted
    names = np.array(["no", "perhaps", "yes"])
    named = small().fit(X, names[y])
    assert sharpness(named, X, names[y], **_options()).value == sharpness(model, X, y, **_options()).value


def test_measuring_leaves_the_model_as_it_was(fitted):
    model = copy.deepcopy(fitted[0])
    _, X, y = fitted
    module = model.module_
    module.train()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    history, params, copies = list(model.history_), repr(model.get_params()), (X.copy(), y.copy())
    with no_global_random_numbers():
        for solver in SOLVERS:
            for policy in ("batch", "population", "running"):
                quiet_sharpness(
                    model, X, y, solver=solver, batch_norm=policy, chunk_size=20, **_options(subspace_dim=2)
                )
        sharpness(model, X, y, **_options())
    assert module.training
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in module.parameters())
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert (list(model.history_), repr(model.get_params())) == (history, params)
    np.testing.assert_array_equal(X, copies[0])
    np.testing.assert_array_equal(y, copies[1])


# -- bad input ---------------------------------------------------------------------------------------------------------


NAN = float("nan")
BAD_VALUES = {
    "solver": ({"solver": "lbfgs"}, "solver must be one of 'auto', 'lbfgsb', 'lbfgsb-scaled', 'power'; got 'lbfgs'"),
    "no solver": ({"solver": None}, "solver must be one of .*; got None"),
    "subspace": ({"subspace": "normal"}, "subspace must be 'gaussian' or 'orthonormal'; got 'normal'"),
    "subspace with dim": (
        {"subspace": "normal", "subspace_dim": 2},
        "subspace must be 'gaussian' or 'orthonormal'; got 'normal'",
    ),
    "dim 0": ({"subspace_dim": 0}, "subspace_dim must be an integer between 1 and 6, the number of parameters; got 0"),
    "dim 7": ({"subspace_dim": 7}, "subspace_dim must be an integer between 1 and 6, the number of parameters; got 7"),
    "dim True": ({"subspace_dim": True}, "subspace_dim must be an integer .*; got True"),
    "dim float": ({"subspace_dim": 2.0}, "subspace_dim must be an integer .*; got 2.0"),
    "max_iter 0": ({"max_iter": 0}, "max_iter must be None or an integer of at least 1; got 0"),
    "max_iter float": ({"max_iter": 2.5}, "max_iter must be None or an integer of at least 1; got 2.5"),
    "max_iter True": ({"max_iter": True}, "max_iter must be None or an integer of at least 1; got True"),
    "n_restarts": ({"n_restarts": -1}, "n_restarts must be None or an integer of at least 0; got -1"),
    **{
        f"epsilon {value}": ({"epsilon": value}, "epsilon must be a number above 0 or a sequence of such numbers; got ")
        for value in (0, -1e-3, NAN, float("inf"), True, "0.1", None, [1e-3, 0], [True], [[1e-3]])
    },
    "no epsilon": ({"epsilon": []}, "epsilon must be .*; got an empty sequence"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_values(case):
    kwargs, sentence = BAD_VALUES[case]
    with pytest.raises(ValueError, match=sentence):
        sharpness(objective_of(linear()[0]), **kwargs)


@pytest.mark.parametrize(("max_samples", "got"), [(0, "0"), (-3, "-3"), (1.5, "1.5"), (0.0, "0.0"), (True, "True")])
def test_bad_max_samples(max_samples, got):
    module, criterion, X, y = PROBLEMS["tanh"]()
    with pytest.raises(ValueError, match=f"max_samples must be None, an integer .*; got {got}"):
        sharpness((module, criterion), X, y, max_samples=max_samples)


def test_a_subspace_of_a_subspace():
    objective = objective_of(linear()[0])
    restricted = objective.restrict(random_subspace(objective.theta0, 2, random_state=0))
    with pytest.raises(ValueError, match="subspace_dim must be None for an Objective that is already restricted"):
        sharpness(restricted, subspace_dim=2)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_loss_that_is_not_finite(value):
    problem = landscape(lambda theta: theta.sum() * 0 + value, torch.zeros(2))
    with pytest.raises(ValueError, match=f"loss must be finite at the measured point; got {value}"):
        sharpness(objective_of(problem))


def _constant(value):
    return objective_of(landscape(lambda theta: theta.sum().square() + value, torch.ones(2)))


def test_a_negative_loss_is_told():
    """NLLLoss on probabilities is one: 1 + f0 then shrinks as the fit gets better."""
    with pytest.warns(UserWarning, match=r"loss is negative at the measured point \(-0.5\)\. .* log-probabilities"):
        assert sharpness(_constant(-4.5)).value > 0


@pytest.mark.parametrize("value", [-5.0, -6.0])
def test_a_loss_that_the_metric_cannot_divide_by(value):
    with pytest.raises(ValueError, match=f"loss must be above -1 at the measured point, because .*; got {value + 4}"):
        sharpness(_constant(value))


def test_labels_never_seen(fitted):
    model, X, y = fitted
    with pytest.raises(ValueError, match="y must have the labels seen in fit"):
        sharpness(model, X, y + 7)


BROKEN = {
    "nan": lambda theta: 2 + (theta - 1).sqrt().sum(),  # at its end: no numbers on one side
    "overflow": lambda theta: ((theta - 1).abs() * 1e4).exp().sum(),  # the centre is finite, all vertices are not
    "part": lambda theta: 2 + theta.sum() + torch.where(theta[0] > 1.0005, torch.inf, 0.0),  # of the vertices one half
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n", [3, 30])
@pytest.mark.parametrize("name", BROKEN)
def test_a_box_in_which_the_loss_is_not_finite(name, n, solver):
    """The largest finite loss is no measurement: the record and a warning say so."""
    problem = landscape(BROKEN[name], torch.ones(n, dtype=torch.float64))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record = sharpness(objective_of(problem), epsilon=0.1, solver=solver, random_state=0)
    assert np.isfinite(record.value)
    assert tuple(str(w.message) for w in caught if w.category is ConvergenceWarning) == record.notes
    if solver == "auto" or record.value == 0:
        assert record.notes
    if solver == "auto":
        assert any("not finite at" in note for note in record.notes)


def test_finite_losses_leave_no_note():
    assert sharpness(objective_of(linear()[0]), random_state=0).notes == ()


def test_unfitted():
    X, y = blobs()
    for estimator in (small(), make_pipeline(StandardScaler(), small()), GridSearchCV(small(), {"lr": [0.1]})):
        with pytest.raises(NotFittedError):
            sharpness(estimator, X, y)
    with pytest.raises(TypeError, match="estimator must be an LBGapClassifier"):
        sharpness(StandardScaler(), X, y)


def test_data_and_an_objective(fitted):
    model, X, y = fitted
    objective = objective_of(linear()[0])
    with pytest.raises(TypeError, match="because it holds its own data"):
        sharpness(objective, X, y)
    with pytest.raises(TypeError, match="X and y must be given"):
        sharpness(model)


@pytest.mark.parametrize("kwargs", [{"batch_norm": "running"}, {"n_restart": 3}])
def test_an_argument_that_would_have_no_effect(kwargs):
    # An Objective has its policy already; a misspelt name must not vanish.
    with pytest.raises(TypeError, match=next(iter(kwargs))):
        sharpness(objective_of(linear()[0]), **kwargs)


def test_a_misspelt_argument_beside_an_estimator(fitted):
    model, X, y = fitted
    with pytest.raises(TypeError, match="n_restart"):
        sharpness(model, X, y, n_restart=3)
