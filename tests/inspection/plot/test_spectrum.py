import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from sklgap.inspection import (
    HessianEigenvalues,
    SpectralDensity,
    SpectrumDisplay,
    hessian_eigenvalues,
    hessian_spectral_density,
)
from sklgap.objective import Objective
from tests.tiny import blobs, small

GRID = np.linspace(-1, 3, 9)


def _density(scale=1.0, batch_norm="batch", n_params=100, width=0.5):
    none = np.zeros((1, 1))
    return SpectralDensity(none, none, GRID, scale * np.exp(-(GRID**2)), GRID, width, n_params, 5, 7, batch_norm)


def _eigenvalues(*values):
    return HessianEigenvalues(np.array(values), None, np.zeros(len(values)), True, "", 9, "largest", 7, "batch")


@pytest.fixture(autouse=True)
def _without_a_screen():
    plt = pytest.importorskip("matplotlib.pyplot")
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def test_lines_and_marks():
    densities = {"SB": _density(), "LB": _density(2.0, n_params=1000)}
    eigenvalues = {"SB": _eigenvalues(2.5, 2.0), "LB": _eigenvalues(3.0)}
    display = SpectrumDisplay(densities, eigenvalues).plot()
    assert list(display.lines_) == list(display.marks_) == ["SB", "LB"]
    for name, line in display.lines_.items():
        assert line.get_xdata().tolist() == GRID.tolist()
        assert line.get_ydata().tolist() == densities[name].density.tolist()
        assert line.get_label() == name
        mark = display.marks_[name]
        assert mark.get_xdata().tolist() == eigenvalues[name].eigenvalues.tolist()
        # The peak of one eigenvalue of n_params, smoothed.
        height = 1 / (densities[name].n_params * 0.5 * np.sqrt(2 * np.pi))
        np.testing.assert_allclose(mark.get_ydata(), height)
        assert mark.get_color() == line.get_color()
        assert display.ax_.get_ylim()[0] < height
    assert display.ax_.get_yscale() == "log"
    assert display.ax_.get_ylabel() == "density"
    assert display.ax_.get_xlabel() == "eigenvalue of the Hessian (batch norm: batch)"
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["SB", "LB"]
    assert display.figure_ is display.ax_.figure


def test_without_eigenvalues_and_under_two_policies():
    display = SpectrumDisplay({"a": _density(), "b": _density(batch_norm="running")}).plot()
    assert display.marks_ == {}
    assert display.ax_.get_xlabel() == "eigenvalue of the Hessian (batch norm: batch, running)"


def test_axes_given_and_keywords_pass_through():
    ax = Figure().subplots()
    display = SpectrumDisplay({"a": _density()}).plot(ax=ax, linewidth=3.5, label="other")
    assert (display.ax_, display.figure_) == (ax, ax.figure)
    assert display.lines_["a"].get_linewidth() == 3.5
    assert display.lines_["a"].get_label() == "other"


def test_from_estimators_has_the_functions_numbers():
    X, y = blobs(60)
    models = {name: small(batch_regime=size).fit(X, y) for name, size in (("SB", 10), ("LB", 60))}
    options = {"n_vectors": 2, "n_steps": 6, "width": 0.1, "n_points": 20}
    display = SpectrumDisplay.from_estimators(
        models, X, y, k=2, max_samples=40, random_state=0, batch_norm="running", ax=Figure().subplots(), **options
    )
    assert list(display.densities) == list(display.eigenvalues) == ["SB", "LB"]
    seed = np.random.RandomState(0).randint(2**31 - 1)
    rows = np.sort(np.random.RandomState(seed).choice(60, 40, replace=False))  # the same rows for all
    for name, model in models.items():
        data = X[rows], torch.from_numpy(y[rows])
        objective = Objective(model.module_, nn.CrossEntropyLoss(), data, batch_norm="running")
        density = hessian_spectral_density(objective, random_state=seed, **options)
        np.testing.assert_array_equal(display.densities[name].density, density.density)
        values = hessian_eigenvalues(objective, k=2, random_state=seed).eigenvalues
        np.testing.assert_array_equal(display.eigenvalues[name].eigenvalues, values)
        assert display.densities[name].n_samples == 40
    assert display.ax_.get_xlabel().endswith("(batch norm: running)")


def test_from_estimator():
    X, y = blobs(30)
    model = small().fit(X, y)
    options = {"n_vectors": 1, "n_steps": 4, "random_state": 0, "k": None}
    display = SpectrumDisplay.from_estimator(model, X, y, ax=Figure().subplots(), **options)
    assert list(display.densities) == ["LBGapClassifier"]
    assert (display.eigenvalues, display.marks_) == (None, {})
    named = SpectrumDisplay.from_estimator(model, X, y, name="SB", ax=Figure().subplots(), **options)
    np.testing.assert_array_equal(named.densities["SB"].nodes, display.densities["LBGapClassifier"].nodes)


def test_no_models():
    with pytest.raises(ValueError, match="estimators must be a dict with at least one model"):
        SpectrumDisplay.from_estimators({})


def test_estimators_must_be_a_dict():
    with pytest.raises(TypeError, match="estimators must be a dict of names to models; got list"):
        SpectrumDisplay.from_estimators([], None, None)
