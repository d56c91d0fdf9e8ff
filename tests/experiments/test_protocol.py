"""The words that experiments share: what is measured, and the seeds of trials."""

import dataclasses
import inspect

import numpy as np
import pytest

from sklgap import compare_regimes
from sklgap.experiments import Measurement
from sklgap.experiments._protocol import (
    MEASUREMENT_NAMES,
    draw_different_seeds,
    draw_seeds,
    given_measurement,
    take,
    with_parameters,
)
from sklgap.experiments._scores import Score
from tests.experiments.comparisons import DATA, SIZES, figures
from tests.tiny import small


def settled(n=50, **values):
    return Measurement(**values).settle(n, np.random.RandomState(0))


# -- measurements ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epsilon", "expected"),
    [(1e-3, (1e-3,)), ([1e-3, 5e-4], (1e-3, 5e-4)), (np.array([0.1]), (0.1,)), ((), ())],
    ids=str,
)
def test_one_size_of_a_box_or_several(epsilon, expected):
    measuring = settled(epsilon=epsilon)
    assert measuring.epsilons == expected
    assert measuring.subspace_dims == ((None,) if expected else ())


@pytest.mark.parametrize(("max_samples", "n"), [(None, 50), (20, 20), (0.5, 25), (1.0, 50), (10_000, 50)])
def test_samples_of_the_sharpness(max_samples, n):
    rows = settled(max_samples=max_samples).rows
    assert len(np.unique(rows)) == n
    np.testing.assert_array_equal(rows, settled(max_samples=max_samples).rows)


def test_names_and_settings():
    measuring = settled(epsilon=[1e-3, 0.01], subspace_dims=(None, 3), scoring=["accuracy", "f1"])
    keys = ["sharpness_0.001", "sharpness_0.01", "sharpness_0.001_dim3", "sharpness_0.01_dim3"]
    assert measuring.sharpness_keys() == keys
    settings = measuring.settings()
    assert settings["epsilon"] == [1e-3, 0.01]
    assert settings["scores"] == ["accuracy", "f1"]
    assert settings["n_samples_sharpness"] == 50


BAD = {
    "batch_norm": {"batch_norm": "train"},
    "solver": {"solver": "best"},
    "epsilon": {"epsilon": 0},
    "epsilon twice": {"epsilon": [1e-3, 0.001]},
    "epsilon text": {"epsilon": "small"},
    "max_samples": {"max_samples": 1.5},
    "max_samples True": {"max_samples": True},
    "subspace_dims": {"subspace_dims": [0]},
    "subspace_dims number": {"subspace_dims": 3},
    "scoring": {"scoring": "f_one"},
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_values_are_refused_where_a_measurement_is_made(case):
    (name,) = BAD[case]
    with pytest.raises(ValueError, match=f"^{name}.* must "):
        Measurement(**BAD[case])


def test_every_experiment_takes_a_measurement():
    own = {"epsilon": [0.01], "subspace_dims": (3,), "batch_norm": "running", "max_samples": 0.5, "solver": "power"}
    common = {**SIZES, "n_trials": 1, "random_state": 0, "verbose": 0}
    whole = compare_regimes(small(), *DATA, measurement=Measurement(**own), **common)
    assert figures(whole) == figures(compare_regimes(small(), *DATA, **own, **common))
    assert "sharpness_0.01_dim3" in whole.records[0]


def _given(**values):
    parameters = {field.name: field.default for field in dataclasses.fields(Measurement)}
    both_of_the_paper = {"epsilon": inspect.signature(compare_regimes).parameters["epsilon"].default}
    return given_measurement(compare_regimes, {**parameters, **both_of_the_paper, "measurement": None, **values})


def test_what_its_own_parameters_say():
    assert _given(solver="power") == Measurement(epsilon=(1e-3, 5e-4), solver="power")
    whole = Measurement(epsilon=0.1)
    assert _given(measurement=whole) is whole
    assert _given(measurement=whole, epsilon=(1e-3, 5e-4)) is whole


@pytest.mark.parametrize(
    "beside", [{"epsilon": 1e-3}, {"epsilon": np.array([1e-3, 5e-4])}, {"scoring": "f1", "solver": "power"}], ids=str
)
def test_a_measurement_beside_its_own_parameters(beside):
    with pytest.raises(ValueError, match=f"measurement must be None if {', '.join(sorted(beside, reverse=True))}"):
        _given(measurement=Measurement(), **beside)


@pytest.mark.parametrize("value", ["all", {"epsilon": 1e-3}, 0, Measurement])
def test_no_measurement(value):
    with pytest.raises(TypeError, match="measurement must be None or a Measurement; got "):
        _given(measurement=value)


def test_the_names_are_those_of_the_class():
    assert MEASUREMENT_NAMES == ("epsilon", "subspace_dims", "batch_norm", "max_samples", "solver", "scoring")
    assert settled().scores == (Score("accuracy"),)


# -- seeds and parameters ----------------------------------------------------------------------------------------------


def test_seeds():
    seeds = draw_seeds(3, 0)
    assert seeds == draw_seeds(3, np.random.RandomState(0))
    assert seeds[:2] == draw_seeds(2, 0)
    assert seeds != draw_seeds(3, 1)
    for n_trials in (0, True, 2.5):
        with pytest.raises(ValueError, match="n_trials must be an integer of at least 1"):
            draw_seeds(n_trials, 0)


def test_different_seeds():
    class Repeating:
        def randint(self, high, size):
            return np.array({4: [5, 5, 7, 8], 1: [9]}[size])

    assert draw_different_seeds(4, Repeating()) == [5, 7, 8, 9]


def test_parameters_of_a_clone():
    model = small(lr=0.1)
    other = with_parameters(model, {"lr": 0.2, "module__width": 4})
    assert (model.lr, other.lr, other.get_params()["module__width"]) == (0.1, 0.2, 4)


def test_rows_of_any_data():
    pd = pytest.importorskip("pandas")
    rows = np.array([2, 0])
    for data in ([10, 11, 12], np.array([10, 11, 12]), pd.Series([10, 11, 12], index=[5, 6, 7])):
        assert np.asarray(take(data, rows)).tolist() == [12, 10]
