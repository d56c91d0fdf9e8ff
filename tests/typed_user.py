"""What a typed program of a user looks like; mypy checks it beside the package, and a test runs it."""

from typing import TYPE_CHECKING, assert_type

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from sklgap import LBGapClassifier, batch_size_curve, explain_gap, largest_safe_batch_size, sharpness_score
from sklgap.datasets import fetch_mnist, make_mnist_like
from sklgap.experiments import BatchSizeCurve, BatchSizeLimits, Estimate, GapExplanation, batch_size_limits
from sklgap.inspection import (
    Flatness,
    HessianEigenvalues,
    LossCurve,
    ParametricPlotDisplay,
    Sharpness,
    adaptive_sharpness,
    average_sharpness,
    flatness,
    hessian_eigenvalues,
    loss_along_line,
    rescale_layers,
    sharpness,
    weight_distance,
)
from sklgap.objective import Objective, check_objective


def study() -> list[Sharpness]:
    """Fit, measure and draw."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:200] / 16, y[:200]
    sb, lb = (
        LBGapClassifier(batch_size=size, module__width=8, max_epochs=1, tol=None, random_state=0).fit(X, y)
        for size in (20, 200)
    )
    one = sharpness(sb, X, y, epsilon=1e-3, solver="power")
    assert_type(one, Sharpness)
    several = sharpness(sb, X, y, epsilon=[1e-3, 5e-4], solver="power", batch_norm="running", max_samples=0.5)
    assert_type(several, list[Sharpness])
    assert_type(adaptive_sharpness(lb, X, y, epsilon=np.array([1e-3]), solver="power"), list[Sharpness])
    assert_type(sharpness_score(sb, X, y, solver="power"), float)

    assert_type(average_sharpness(sb, X, y, sigma=0.01, n_pairs=2, max_samples=50), Flatness)
    assert_type(flatness(sb, X, y, measures={"norm": lambda f: float(f.theta0.norm())}).measures, dict[str, Flatness])

    f = check_objective(sb, X, y, batch_norm="population", dtype=torch.float64)
    assert_type(f, Objective)
    assert_type(f.value(), float)
    largest = hessian_eigenvalues(f, k=1, which="largest", random_state=0)
    assert_type(largest, HessianEigenvalues)
    pair = (nn.Linear(64, 10), nn.CrossEntropyLoss())
    assert_type(check_objective(pair, torch.as_tensor(X).float(), y.tolist()).n_params, int)

    assert_type(weight_distance(sb), float)
    assert_type(weight_distance(sb, lb, per_layer=True), dict[str, float])
    net = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    assert_type(rescale_layers(net, 2.0), nn.Sequential)
    curve = loss_along_line(sb, lb, X, y, alphas=[0, 0.5, 1])
    assert_type(curve, LossCurve)
    display = ParametricPlotDisplay(curve).plot()
    assert_type(display, ParametricPlotDisplay)
    display.ax_.set_title("between two solutions")
    return [one, *several]


def load(n_samples: int) -> float:
    """Load data, from files or made."""
    images, labels = make_mnist_like(n_samples, random_state=0)
    assert_type(labels.dtype, np.dtype[np.int64])
    return float(images.mean())


def train(batch_size: int, random_state: int, epochs: int = 1) -> tuple[nn.Module, dict[str, object]]:
    """Train in a loop of one's own, here not at all."""
    right = np.random.RandomState([random_state, batch_size]).rand(200) < 0.9 - 0.001 * batch_size / epochs
    return nn.Linear(2, 2), {"correct": right, "n_updates": 100}


def own_loop() -> int:
    """Ask how large a batch may be, and why a larger one loses."""
    curve = batch_size_curve(train, batch_sizes=[10, 400], n_trials=3, random_state=0, verbose=0)
    assert_type(curve, BatchSizeCurve)
    limits = batch_size_limits(
        largest_safe_batch_size(curve, margin=0.2), fits=4096, useful=Estimate(900.0, 600.0, 1400.0, 5)
    )
    assert_type(limits, BatchSizeLimits)
    causes = {"fewer updates": {"epochs": 10}}
    found = explain_gap(train, small=10, large=400, causes=causes, n_trials=3, random_state=0, verbose=0)
    assert_type(found, GapExplanation)
    assert_type(found.total(), Estimate)
    return int(limits)


if TYPE_CHECKING:  # what mypy must refuse: a comment that is not needed is an error
    model = LBGapClassifier()
    data, target = fetch_mnist(return_X_y=True)
    sharpness(model, data, target, solver="newton")  # type: ignore[call-overload]
    sharpness(model, data, target, batchnorm="batch")  # type: ignore[call-overload]
    sharpness("model", data, target)  # type: ignore[call-overload]
    only: Sharpness = sharpness(model, data, target, epsilon=[1e-3])  # type: ignore[assignment]
    hessian_eigenvalues(model, data, target, which="middle")  # type: ignore[arg-type]
    loss_along_line(model, model, data, target, batch_norm="mean")  # type: ignore[arg-type]
    sharpness_score(model, 3, target)  # type: ignore[arg-type]
    fetch_mnist(subset="valid")  # type: ignore[call-overload]
    batch_size_curve(train, batch_sizes=[8, 16], lr="half")  # type: ignore[arg-type]
    batch_size_curve(train, batch_sizes=8)  # type: ignore[arg-type]
    explain_gap(train, causes=3)  # type: ignore[arg-type]
