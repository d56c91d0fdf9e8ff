import inspect
from typing import get_args

import matplotlib as mpl
import pytest

import sklgap.inspection._surface as surface
from sklgap import _typing, metrics
from sklgap.inspection import _gradient_noise, _sharpness, sharpness
from sklgap.inspection._plot import _surface as surface_plot
from sklgap.metrics._sharpness import ScoreOptions
from sklgap.objective import Objective, _batch_norm, check_objective
from sklgap.objective._check import ObjectiveOptions
from tests import typed_user


def test_the_program_of_a_typed_user_runs():
    plt = pytest.importorskip("matplotlib.pyplot")
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    records = typed_user.study()
    plt.close("all")
    plt.switch_backend(backend)
    assert [record.epsilon for record in records] == [1e-3, 1e-3, 5e-4]
    assert all(record.value > 0 for record in records)
    assert 0 < typed_user.load(20) < 1
    assert typed_user.own_loop() == 10


@pytest.mark.parametrize(
    ("checked", "choice"),
    [
        (_sharpness.SOLVERS, _typing.Solver),
        (_batch_norm.POLICIES, _typing.BatchNormPolicy),
        (_gradient_noise.METHODS, _typing.NoiseMethod),
        (surface.DIRECTIONS, _typing.DirectionKind),
        (surface_plot.KINDS, _typing.SurfaceKind),
        (surface_plot.QUANTITIES, _typing.Quantity),
    ],
    ids=["solver", "batch_norm", "method", "directions", "kind", "quantity"],
)
def test_checks_allow_what_the_types_allow(checked, choice):
    assert checked == get_args(choice)


def _keywords(function):
    return {
        name for name, p in inspect.signature(function).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        (ObjectiveOptions, _keywords(Objective)),
        (_sharpness.SharpnessOptions, (_keywords(sharpness) | _keywords(Objective)) - {"epsilon"}),
        (ScoreOptions, _keywords(metrics.sharpness_score)),
    ],
    ids=["Objective", "sharpness", "sharpness_score"],
)
def test_typed_options_are_the_keywords_of_the_function(options, accepted):
    assert set(options.__annotations__) == accepted


def test_unknown_options_are_named_at_run_time_too():
    with pytest.raises(
        TypeError, match=r"batchnorm is not an option of Objective; its options are batch_norm, chunk_size"
    ):
        check_objective((object(), None), [[1.0]], [0], batchnorm="batch")
