"""How near a training is to the edge of stability: the largest eigenvalues of the Hessian, and the threshold there."""

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
from sklgap.inspection._stability_threshold import WAY_OUT, NotStarted, StabilityThreshold, stability_threshold
from sklgap.objective import Objective, check_objective
from sklgap.objective._batch_norm import check_batch_norm
from sklgap.objective._data import CHUNK_SIZE
from sklgap.objective._parameters import trainable_parameters

# "optimizer": that of the optimiser, for the Hessian as it preconditions it; a number: for the Hessian itself; None: no
# threshold, the Hessian itself.
Threshold = Literal["optimizer"] | float | None


def check_search(
    n_eigenvalues: Any, threshold: Any, batch_norm: Any, max_samples: Any, tol: Any, max_iter: Any
) -> None:
    """ValueError for what eigenvalues along a training are not searched with; the arguments that all ways share."""
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
    """ValueError for more eigenvalues than parameters."""
    n_params = sum(p.numel() * (1 + p.is_complex()) for p in trainable_parameters(module).values())
    if n_eigenvalues > n_params:
        raise ValueError(f"n_eigenvalues must be at most the {n_params} parameters; got {n_eigenvalues}.")


class Curvature(NamedTuple):
    """The largest eigenvalues at one point of a training, and the threshold there; None without one."""

    found: HessianEigenvalues
    threshold: StabilityThreshold | None
    value: float

    def numbers(self) -> dict[str, float]:
        """Return what is recorded."""
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
    start: np.ndarray | None,
) -> Curvature:
    """Return the largest eigenvalues of the Hessian as the optimiser of the module preconditions it, and the threshold.

    A search that has spent its products is recorded and raises no warning.
    """
    check_number(k, module)
    line = None
    if threshold == "optimizer":
        assert optimizer is not None
        line = stability_threshold(optimizer, module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = hessian_eigenvalues(
            objective,
            k=k,
            tol=tol,
            max_iter=max_iter,
            start=start,
            preconditioner=None if line is None else line.preconditioner,
            return_eigenvectors=True,
            random_state=random_state,
        )
    value = math.nan if threshold is None else float(threshold) if line is None else line.value
    return Curvature(found, line, value)


class StabilityMeasurement:
    """The largest eigenvalues of the Hessian and the threshold of the optimiser, for a `sklgap.TrainingRecorder`.

    ``TrainingRecorder(measurements={"stability": StabilityMeasurement(X, y)})`` records them along any training with
    skorch or `LBGapClassifier`: ``stability_eigenvalue`` (the largest), ``stability_eigenvalue_2`` and so on,
    ``stability_threshold``, ``stability_relative`` (the largest eigenvalue divided by the threshold: 1 is the edge of
    stability), ``stability_learning_rate``, ``stability_converged`` (1 or 0) and ``stability_n_products``.

    Parameters
    ----------
    X, y : array-like
        The samples that the loss is the mean over: the training samples, or a part of them. In a pipeline: as the
        earlier steps transform them.
    n_eigenvalues : int, default=1
        How many of the largest eigenvalues.
    threshold : "optimizer", float or None, default="optimizer"
        ``"optimizer"``: the `stability_threshold` of the net's optimiser at its present rates, and eigenvalues of the
        Hessian as the optimiser preconditions it. A number, or None for no threshold: eigenvalues of the Hessian.
    batch_norm : {"batch", "population", "running"}, default="batch"
        Batch-norm policy; see `sklgap.Objective`.
    chunk_size : int, default=5000
        Samples evaluated at once.
    max_samples : int, float or None, default=None
        Measure on so many of the samples (int), or on this fraction of them (float in (0, 1]), the same ones every
        time; None: on all.
    tol : float, default=1e-3
        Largest residual of an eigenpair, relative to the eigenvalue; see `hessian_eigenvalues`.
    max_iter : int, default=None
        Hessian-vector products allowed; None: 200 and 20 per eigenvalue.
    random_state : int, default=0
        Draws the samples and the vectors that the searches begin with.

    Raises
    ------
    ValueError, TypeError
        When made, for a parameter outside its allowed values. When called, for an optimiser whose threshold is not
        known (see `stability_threshold`), and for remedies and callbacks that change the gradient, such as gradient
        clipping: the threshold is another one then. A callback with a method ``on_grad_computed`` may change it, unless
        it has an attribute ``changes_gradient`` that is False.

    See Also
    --------
    sklgap.stability_trajectory : Records and draws it for small and large batches.
    sklgap.monitor.StabilityMonitor : The same in your own training loop.

    Notes
    -----
    Every search begins with the eigenvectors of the last one, which saves products; see ``start`` of
    `hessian_eigenvalues`. A recorder begins every fit without them, so that records depend on the fit alone. After a
    kill, ``memory`` resumes a fit without them too: its records agree with those of an undisturbed one to ``tol``.

    NaN is recorded where there is nothing to measure: an adaptive optimiser has no preconditioner before its first
    update, and a training that diverged has no finite Hessian.

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
        self.X, self.y = X, y
        self.n_eigenvalues, self.threshold, self.batch_norm = n_eigenvalues, threshold, batch_norm
        self.chunk_size, self.max_samples, self.tol, self.max_iter = chunk_size, max_samples, tol, max_iter
        self.random_state = random_state

    def fresh(self) -> Self:
        """Return a copy for another fit, without the eigenvectors of this one; it shares the data."""
        copied = copy.copy(self)
        vars(copied).pop("start_", None)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the eigenvectors of the last call, which are as large as the net."""
        return {name: value for name, value in vars(self).items() if name != "start_"}

    def __call__(self, net: Any) -> dict[str, float]:
        """Return the numbers of a fitted net as it is now."""
        objective = check_objective(
            net,
            self.X,
            self.y,
            batch_norm=self.batch_norm,
            chunk_size=self.chunk_size,
            max_samples=self.max_samples,
            random_state=self.random_state,
        )
        if self.threshold == "optimizer":
            check_updates_are_plain(net)
        try:
            found = measure_curvature(
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
        except (NotStarted, NotFinite):
            return self._nothing()
        self.start_ = found.found.eigenvectors
        return found.numbers()

    def _nothing(self) -> dict[str, float]:
        more = [f"eigenvalue_{i}" for i in range(2, self.n_eigenvalues + 1)]
        names = ["eigenvalue", *more, "threshold", "relative", "learning_rate", "converged", "n_products"]
        return dict.fromkeys(names, math.nan)


def check_updates_are_plain(net: Any) -> None:
    """ValueError for a net with remedies or callbacks that change the gradient: its threshold is another one."""
    parts = [("remedies", remedy) for remedy in getattr(net, "remedies", None) or ()]
    parts += [("callbacks", callback) for _, callback in getattr(net, "callbacks_", None) or ()]
    for parameter, part in parts:
        if _changes_gradient(part):
            raise ValueError(
                f"{parameter} must not change the gradient where the threshold is that of the optimiser, as "
                f"{type(part).__name__} may: {WAY_OUT}."
            )


def _changes_gradient(part: Any) -> bool:
    """Say whether a remedy or a callback may change the gradient. One that skorch shows it to may, unless it denies."""
    said = getattr(part, "changes_gradient", None)
    if said is not None:
        return bool(said)
    own = [kind for kind in type(part).__mro__ if kind.__module__ != "skorch.callbacks.base"]
    return any("on_grad_computed" in vars(kind) for kind in own)
