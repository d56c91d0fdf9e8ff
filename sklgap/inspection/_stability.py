"""How near a training is to the edge of stability: the largest eigenvalues of the Hessian and the threshold."""

import copy
import math
import warnings
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklgap._checks import check_integer, check_max_samples, check_random_state, is_number, shown
from sklgap._typing import ArrayLike, BatchNormPolicy, Inputs
from sklgap.inspection._hessian import HessianEigenvalues, check_tolerance, hessian_eigenvalues
from sklgap.inspection._krylov import NotFinite
from sklgap.inspection._stability_threshold import (
    WAY_OUT,
    NotStable,
    NotStarted,
    StabilityThreshold,
    TooFewParameters,
    stability_threshold,
)
from sklgap.objective import Objective, check_objective
from sklgap.objective._batch_norm import check_batch_norm
from sklgap.objective._data import CHUNK_SIZE, check_weight
from sklgap.objective._parameters import trainable_parameters

# "optimizer" takes the threshold of the optimiser, for the Hessian as the optimiser preconditions it. A number is a
# threshold for the Hessian itself. None means the Hessian itself without a threshold.
Threshold = Literal["optimizer"] | float | None

# The errors that depend on the moment of a training, so that a measurement is left out, with the reason in words.
_MOMENTARY: dict[type[ValueError], str] = {
    NotStarted: "an adaptive optimiser has no preconditioner before its first update",
    NotFinite: "the measured Hessian was not finite",
    NotStable: "weight decay alone, without the loss, made the optimiser unstable at that update",
    TooFewParameters: "fewer parameters were trained than the measurement needs",
}
MOMENTARY = tuple(_MOMENTARY)
# The reasons by the numbers that are recorded. 0 stands for a measurement.
REASONS = dict(enumerate(_MOMENTARY.values(), start=1))


def reason_number(error: ValueError) -> int:
    """Return the number of the reason for which there is no measurement."""
    return next(number for number, kind in enumerate(_MOMENTARY, start=1) if isinstance(error, kind))


def check_search(
    n_eigenvalues: Any, threshold: Any, batch_norm: Any, max_samples: Any, tol: Any, max_iter: Any
) -> None:
    """Raise a ValueError for invalid arguments of a search for eigenvalues along a training."""
    check_integer("n_eigenvalues", n_eigenvalues)
    if not (threshold is None or (isinstance(threshold, str) and threshold == "optimizer")) and (
        not is_number(threshold) or threshold <= 0
    ):
        raise ValueError(f"threshold must be 'optimizer', None or a number above 0; got {shown(threshold)}.")
    check_batch_norm(batch_norm)
    check_max_samples(max_samples)
    check_tolerance(tol)
    check_integer("max_iter", max_iter, or_none=True)
    if max_iter is not None and max_iter < n_eigenvalues:
        raise ValueError(f"max_iter must be at least n_eigenvalues={n_eigenvalues}; got {max_iter}.")


def check_number(n_eigenvalues: int, module: nn.Module) -> None:
    """Raise a ValueError for more eigenvalues than trained parameters."""
    n_params = sum(p.numel() * (1 + p.is_complex()) for p in trainable_parameters(module).values())
    if n_eigenvalues > n_params:
        raise TooFewParameters(
            f"n_eigenvalues must be at most {n_params}, the number of parameters; got {n_eigenvalues}."
        )


class Start(NamedTuple):
    """The eigenvectors of a measurement, from which the next search begins, and the parameters that were trained."""

    vectors: np.ndarray
    shapes: dict[str, torch.Size]

    def of(self, module: nn.Module) -> np.ndarray | None:
        """Return the eigenvectors; None if other parameters are trained now, as after freezing or thawing layers."""
        return self.vectors if list(self.shapes.items()) == list(_shapes(module).items()) else None


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in trainable_parameters(module).items()}


class Curvature(NamedTuple):
    """The largest eigenvalues at one point of a training, and the threshold there, if there is one."""

    found: HessianEigenvalues
    threshold: StabilityThreshold | None
    value: float
    start: Start

    def numbers(self) -> dict[str, float]:
        """Return the numbers to record."""
        eigenvalues = {"eigenvalue": float(self.found.eigenvalues[0])}
        for i, value in enumerate(self.found.eigenvalues[1:], start=2):
            eigenvalues[f"eigenvalue_{i}"] = float(value)
        return {
            **eigenvalues,
            "threshold": self.value,
            "relative": eigenvalues["eigenvalue"] / self.value,
            "learning_rate": math.nan if self.threshold is None else self.threshold.learning_rate,
            "converged": float(self.found.converged),
            "n_products": float(self.found.n_products),
        }


def measure_curvature(
    objective: Objective,
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    threshold: Threshold,
    *,
    k: int,
    tol: float,
    max_iter: int | None,
    random_state: int,
    start: Start | None,
) -> Curvature:
    """Return the largest eigenvalues of the Hessian as the module's optimiser preconditions it, and the threshold.

    A search that spends all its products is recorded without a warning. Raise one of the errors `MOMENTARY` if nothing
    can be measured at this moment of the training.
    """
    check_number(k, module)
    line = None
    if threshold == "optimizer":
        assert optimizer is not None
        line = stability_threshold(optimizer, module)
        _check_moving(k, line)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = hessian_eigenvalues(
            objective,
            k=k,
            tol=tol,
            max_iter=max_iter,
            start=None if start is None else start.of(module),
            preconditioner=None if line is None else line.preconditioner,
            return_eigenvectors=True,
            random_state=random_state,
        )
    value = math.nan if threshold is None else float(threshold) if line is None else line.value
    assert found.eigenvectors is not None
    return Curvature(found, line, value, Start(found.eigenvectors, _shapes(module)))


def _check_moving(n_eigenvalues: int, line: StabilityThreshold) -> None:
    """Raise a ValueError for more eigenvalues than parameters that the optimiser moves."""
    moving = n_eigenvalues if line.preconditioner is None else int(torch.isfinite(line.preconditioner).sum())
    if n_eigenvalues > moving:
        raise TooFewParameters(
            f"n_eigenvalues must be at most {moving}, the number of parameters that optimizer trains; "
            f"got {n_eigenvalues}."
        )


class StabilityMeasurement:
    """Measures the largest eigenvalues of the Hessian and the optimiser's threshold, for a `sklgap.TrainingRecorder`.

    ``TrainingRecorder(measurements={"stability": StabilityMeasurement(X, y)})`` records them along any training with
    skorch or `LBGapClassifier`. The records are ``stability_eigenvalue`` (the largest), ``stability_eigenvalue_2`` and
    so on, ``stability_threshold``, ``stability_relative`` (the largest eigenvalue divided by the threshold; 1 is the
    edge of stability), ``stability_learning_rate``, ``stability_converged`` (1 or 0), ``stability_n_products`` and
    ``stability_not_measured`` (0, or the number of the reason in the notes).

    Parameters
    ----------
    X, y : array-like
        Samples over which the loss is averaged: the training samples, or a part of them. In a pipeline, give them as
        the earlier steps transform them.
    sample_weight : array-like of shape (n_samples,), default=None
        Weight of each sample in the loss, at least 0. Give the weights with which the net is fitted, so that the
        measured loss is the one that training lowers. None means that all samples count equally.
    n_eigenvalues : int, default=1
        Number of the largest eigenvalues to measure.
    threshold : "optimizer", float or None, default="optimizer"
        ``"optimizer"`` takes the `stability_threshold` of the net's optimiser at its current learning rates, and the
        eigenvalues of the Hessian as the optimiser preconditions it. A number is a threshold for the eigenvalues of the
        Hessian itself. None measures these eigenvalues without a threshold.
    batch_norm : {"batch", "population", "running"}, default="batch"
        The batch-norm policy; see `sklgap.Objective`.
    chunk_size : int, default=5000
        Number of samples that are evaluated at once.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). They are the same samples every
        time. None uses all samples.
    tol : float, default=1e-3
        Largest residual of an eigenpair, relative to the eigenvalue; see `hessian_eigenvalues`.
    max_iter : int, default=None
        Largest number of Hessian-vector products. None means 200 plus 20 per eigenvalue.
    random_state : int, default=0
        Seed of the samples and of the vectors from which the searches start.

    Raises
    ------
    ValueError, TypeError
        On creation, if a parameter is outside its allowed values. On a call, if the threshold of the optimiser is not
        known (see `stability_threshold`), or if remedies or callbacks change the gradient, as gradient clipping does,
        because the threshold is then a different one. A callback with a method ``on_grad_computed`` may change the
        gradient, unless it has an attribute ``changes_gradient`` that is False.

    See Also
    --------
    sklgap.stability_trajectory : Records and draws it for small and large batches.
    sklgap.monitor.StabilityMonitor : The same measurement in your own training loop.

    Notes
    -----
    Every search starts from the eigenvectors of the last one, which saves products; see ``start`` of
    `hessian_eigenvalues`. If layers have been frozen or thawed since, it starts from a random vector. A recorder begins
    every fit without eigenvectors, so that records depend on the fit alone. After a kill, ``memory`` also resumes a fit
    without them. The records then agree with those of an undisturbed fit to ``tol``.

    NaN is recorded if there is nothing to measure, and ``not_measured`` is the reason:

    1. An adaptive optimiser has no preconditioner before its first update.
    2. The Hessian is not finite, or the state of the optimiser is not, as in a training that diverged.
    3. Weight decay alone makes the optimiser unstable at that update; see `stability_threshold`.
    4. Fewer parameters are trained than ``n_eigenvalues``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, TrainingRecorder
    >>> from sklgap.inspection import StabilityMeasurement, recorded
    >>> from torch.optim import SGD
    >>> X, y = load_digits(return_X_y=True)
    >>> recorder = TrainingRecorder(measurements={"stability": StabilityMeasurement(X[:200] / 16, y[:200])}, every=2)
    >>> model = LBGapClassifier(
    ...     module__width=8, optimizer=SGD, lr=0.1, max_epochs=4, tol=None, callbacks=[("recorder", recorder)]
    ... )
    >>> recorded(model.fit(X / 16, y))["stability_threshold"]
    array([20., 20.])
    """

    def __init__(
        self,
        X: Inputs,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        n_eigenvalues: int = 1,
        threshold: Threshold = "optimizer",
        batch_norm: BatchNormPolicy = "batch",
        chunk_size: int = CHUNK_SIZE,
        max_samples: int | float | None = None,
        tol: float = 1e-3,
        max_iter: int | None = None,
        random_state: int = 0,
    ) -> None:
        check_search(n_eigenvalues, threshold, batch_norm, max_samples, tol, max_iter)
        check_integer("chunk_size", chunk_size)
        check_integer("random_state", random_state, least=0)
        check_random_state(random_state)
        if sample_weight is not None:
            check_weight(sample_weight, len(y))
        self.X, self.y, self.sample_weight = X, y, sample_weight
        self.n_eigenvalues, self.threshold, self.batch_norm = n_eigenvalues, threshold, batch_norm
        self.chunk_size, self.max_samples, self.tol, self.max_iter = chunk_size, max_samples, tol, max_iter
        self.random_state = random_state

    def fresh(self) -> Self:
        """Return a copy for another fit, which shares the data but not the eigenvectors of this fit."""
        copied = copy.copy(self)
        vars(copied).pop("start_", None)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the eigenvectors of the last call, which are as large as the net."""
        return {name: value for name, value in vars(self).items() if name != "start_"}

    def __call__(self, net: Any) -> dict[str, float]:
        """Measure a fitted net as it is now, and return the numbers to record."""
        try:
            found = self._measured(net)
        except MOMENTARY as error:
            return self._nothing(error)
        self.start_ = found.start
        return {**found.numbers(), "not_measured": 0.0}

    def _measured(self, net: Any) -> Curvature:
        check_number(self.n_eigenvalues, net.module_)
        objective = check_objective(
            net,
            self.X,
            self.y,
            batch_norm=self.batch_norm,
            chunk_size=self.chunk_size,
            max_samples=self.max_samples,
            random_state=self.random_state,
            sample_weight=self.sample_weight,
        )
        if self.threshold == "optimizer":
            check_updates_are_plain(net)
        return measure_curvature(
            objective,
            net.module_,
            net.optimizer_,
            self.threshold,
            k=self.n_eigenvalues,
            tol=self.tol,
            max_iter=self.max_iter,
            random_state=self.random_state,
            start=getattr(self, "start_", None),
        )

    def _nothing(self, error: ValueError) -> dict[str, float]:
        more = [f"eigenvalue_{i}" for i in range(2, self.n_eigenvalues + 1)]
        names = ["eigenvalue", *more, "threshold", "relative", "learning_rate", "converged", "n_products"]
        return {**dict.fromkeys(names, math.nan), "not_measured": float(reason_number(error))}


def check_updates_are_plain(net: Any) -> None:
    """Raise a ValueError if remedies or callbacks change the gradient, because that changes the threshold."""
    parts = [("remedies", remedy) for remedy in getattr(net, "remedies", None) or ()]
    parts += [("callbacks", callback) for _, callback in getattr(net, "callbacks_", None) or ()]
    for parameter, part in parts:
        if _changes_gradient(part):
            raise ValueError(
                f"{parameter} must not change the gradient if the threshold is that of the optimiser, but "
                f"{type(part).__name__} may change it; {WAY_OUT}."
            )


def _changes_gradient(part: Any) -> bool:
    """Say whether a remedy or a callback may change the gradient: it has ``on_grad_computed`` and does not deny it."""
    said = getattr(part, "changes_gradient", None)
    if said is not None:
        return bool(said)
    own = [kind for kind in type(part).__mro__ if kind.__module__ != "skorch.callbacks.base"]
    return any("on_grad_computed" in vars(kind) for kind in own)
