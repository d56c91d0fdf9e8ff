"""The edge of stability, measured while a model trains in any training loop."""

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sklgap._checks import check_integer, check_module, check_random_state
from sklgap._random import undisturbed
from sklgap._typing import ArrayLike, BatchNormPolicy, Criterion, Inputs
from sklgap.inspection import StabilityTrajectoryDisplay
from sklgap.inspection._edge import AT_EDGE, far_above, late_records, place_of, share_at_edge
from sklgap.inspection._plot._stability_trajectory import stability_curve
from sklgap.inspection._stability import (
    MOMENTARY,
    REASONS,
    Curvature,
    Start,
    Threshold,
    check_number,
    check_search,
    measure_curvature,
    reason_number,
)
from sklgap.inspection._stability_threshold import check_optimizer
from sklgap.monitor._batches import check_in_reach
from sklgap.monitor._loss import BatchLoss, loss_of_batch
from sklgap.monitor._module import unwrapped
from sklgap.objective import Objective, check_objective
from sklgap.objective._batch_norm import batch_norm_layers
from sklgap.objective._check import ObjectiveOptions
from sklgap.objective._data import CHUNK_SIZE
from sklgap.objective._stream import is_stream

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class StabilityMonitor:
    """Measure in a training loop how near the training is to the edge of stability.

    The monitor computes the largest eigenvalues of the Hessian. If the largest one is above a threshold, the optimiser
    is unstable; the threshold of plain SGD is 2 / lr. Cohen et al. (2021) report that training with all samples at once
    sharpens until the eigenvalue reaches the threshold. For Adam they use the eigenvalue of the preconditioned Hessian
    (Cohen et al. 2022). At the edge the learning rate decides how sharp the net is, and the loss does not fall at every
    update.

    Parameters
    ----------
    module : nn.Module
        The model to train. It may be wrapped by ``torch.compile`` or ``DistributedDataParallel``.
    loss : callable
        A criterion of (outputs, target) whose value is a mean, or a function ``loss(module, batch)`` for a
        ``DataLoader``; see `sklgap.Objective`. It must be the loss that you train on, including penalties. The monitor
        reads the weight decay from the optimiser.
    optimizer : torch.optim.Optimizer
        The optimiser of the training: SGD, Adam, AdamW, RMSprop or Adagrad. Any other needs a different ``threshold``.
        The monitor only reads it.
    data : tuple (X, y), torch.utils.data.Dataset or torch.utils.data.DataLoader
        The samples over which the loss is averaged: the training samples, or a fixed part of them.
    every : int, default=100
        Number of updates between two measurements. The first update is measured.
    n_eigenvalues : int, default=1
        Number of the largest eigenvalues to compute.
    threshold : "optimizer", float or None, default="optimizer"
        ``"optimizer"`` uses the `sklgap.inspection.stability_threshold` of the optimiser at its current learning rates,
        and the eigenvalues of the Hessian as the optimiser preconditions it. A number is the threshold for the
        eigenvalues of the plain Hessian. None uses no threshold.
    batch_norm : {"batch", "population", "running"}, default="batch"
        Batch-norm policy; see `sklgap.Objective`.
    chunk_size : int, default=5000
        Number of samples evaluated at once.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them in (0, 1] (float). Every measurement uses the same
        samples. None uses all of them. It must be None for a DataLoader.
    dtype : torch.dtype, default=None
        Precision of the measurement; None means that of the module. A module in half precision needs ``torch.float32``.
    tol : float, default=1e-3
        Largest residual of an eigenpair, relative to the eigenvalue.
    max_iter : int, default=None
        Largest number of Hessian-vector products per measurement. None means 200, plus 20 per eigenvalue.
    random_state : int, default=0
        Seed for the choice of samples and for the starting vectors of the search.

    Attributes
    ----------
    records : list of dict
        One record per measurement, with the keys ``n_updates``, ``loss`` (on ``data``), ``eigenvalue`` (the largest
        one), ``eigenvalue_2`` and so on, ``threshold`` (NaN without one), ``relative`` (the largest eigenvalue divided
        by the threshold; 1 is the edge), ``learning_rate``, ``converged`` (1 or 0) and ``n_products``.
    n_updates, n_measurements, n_skipped : int
        Number of updates so far, of measured updates, and of updates that could not be measured.
    skipped : list of dict
        One entry per update that could not be measured, with the keys ``n_updates``, ``reason`` (in a few words) and
        ``error`` (the sentence of the error).

    See Also
    --------
    sklgap.inspection.StabilityMeasurement : The same measurement for a `sklgap.TrainingRecorder`.
    sklgap.stability_trajectory : Small and large batches in one figure.

    Notes
    -----
    The monitor measures a copy of the module in evaluation mode. It does not change weights, ``.grad``, buffers, random
    generators, training mode or optimiser, so the training is bit for bit the same as without the monitor.

    A measurement costs some 12 to 40 Hessian-vector products on the data. Each product costs two to three gradients.
    The search starts from the eigenvectors of the previous measurement, or from a random vector if layers have been
    frozen or thawed since.

    An update is skipped before the first update of an adaptive optimiser, if the Hessian or the state of the optimiser
    is not finite, if fewer parameters are trained than ``n_eigenvalues``, and if weight decay alone makes the optimiser
    unstable. Adam with ``weight_decay`` can be so for some updates; see `sklgap.inspection.stability_threshold`. AdamW
    is not, unless lr times ``weight_decay`` is 2 or more.

    The threshold is that of the optimiser's own update. The monitor cannot see whether gradients are clipped or changed
    in another way before ``optimizer.step()``. Use ``threshold=None`` in that case. The verdict warns if a training
    stays at more than twice its threshold.

    References
    ----------
    Cohen et al., Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability, ICLR 2021,
    arXiv:2103.00065. Cohen et al., Adaptive Gradient Methods at the Edge of Stability, arXiv:2207.14484.

    Examples
    --------
    >>> import torch
    >>> from sklgap.monitor import StabilityMonitor
    >>> _ = torch.manual_seed(0)
    >>> X = torch.randn(64, 3)
    >>> y = X.sum(dim=1, keepdim=True)
    >>> net, loss = torch.nn.Linear(3, 1), torch.nn.MSELoss()
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> monitor = StabilityMonitor(net, loss, optimizer, (X, y), every=10)
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     loss(net(X), y).backward()
    ...     optimizer.step()
    ...     monitor.step()
    >>> [record["n_updates"] for record in monitor.records]
    [1, 11]
    >>> monitor.records[-1]["threshold"]
    20.0
    """

    def __init__(
        self,
        module: nn.Module,
        loss: BatchLoss,
        optimizer: torch.optim.Optimizer,
        data: tuple[Inputs, ArrayLike] | Dataset[Any] | DataLoader[Any],
        *,
        every: int = 100,
        n_eigenvalues: int = 1,
        threshold: Threshold = "optimizer",
        batch_norm: BatchNormPolicy = "batch",
        chunk_size: int = CHUNK_SIZE,
        max_samples: int | float | None = None,
        dtype: torch.dtype | None = None,
        tol: float = 1e-3,
        max_iter: int | None = None,
        random_state: int = 0,
    ) -> None:
        check_module(module)
        check_optimizer(optimizer)
        check_in_reach(module, optimizer)
        if loss_of_batch(loss) is None:
            raise TypeError("loss must be a criterion or a function loss(module, batch); got None.")
        check_integer("every", every)
        check_search(n_eigenvalues, threshold, batch_norm, max_samples, tol, max_iter)
        check_number(n_eigenvalues, module)
        check_integer("random_state", random_state, least=0)
        check_random_state(random_state)
        self.module, self._loss, self.optimizer = unwrapped(module), loss, optimizer
        self.every, self.n_eigenvalues, self.threshold = int(every), int(n_eigenvalues), threshold
        self.batch_norm, self.tol, self.max_iter, self.random_state = batch_norm, tol, max_iter, int(random_state)
        self._options: ObjectiveOptions = {"batch_norm": batch_norm, "chunk_size": chunk_size, "dtype": dtype}
        self._data = self._loaded(data, max_samples)
        self._start: Start | None = None
        self._preconditioned = False
        self.records: list[dict[str, float]] = []
        self.skipped: list[dict[str, Any]] = []
        self.n_updates = 0

    def _loaded(self, data: Any, max_samples: int | float | None) -> Any:
        """Return the data in the form of an objective, so that they are drawn and loaded only once."""
        if not is_stream(data) and (not isinstance(data, tuple | list) or len(data) != 2):
            raise TypeError(f"data must be a pair (X, y), a Dataset or a DataLoader; got {type(data).__name__}.")
        X, y = (data, None) if is_stream(data) else data
        with undisturbed():
            found = check_objective(
                (self.module, self._loss),
                X,
                y,
                max_samples=max_samples,
                random_state=self.random_state,
                **self._options,
            )
        assert isinstance(found, Objective)
        return found.data

    # -- measuring --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Measure if a measurement is due.

        Call it once per update, after ``optimizer.step()`` and before the step of a learning-rate scheduler.
        """
        due = self.n_updates % self.every == 0
        self.n_updates += 1
        if due:
            self._measure()

    def _measure(self) -> None:
        with undisturbed():
            try:
                found, loss = self._measured()
            except MOMENTARY as error:
                reason = REASONS[reason_number(error)]
                self.skipped.append({"n_updates": self.n_updates, "reason": reason, "error": str(error)})
                return
        self._start = found.start
        self._preconditioned = found.found.preconditioned
        self.records.append({"n_updates": self.n_updates, "loss": loss, **found.numbers()})

    def _measured(self) -> tuple[Curvature, float]:
        """Return the curvature and the loss."""
        check_number(self.n_eigenvalues, self.module)
        objective = Objective(self.module, cast(Criterion, self._loss), self._data, **self._options)
        found = measure_curvature(
            objective,
            self.module,
            self.optimizer,
            self.threshold,
            k=self.n_eigenvalues,
            tol=self.tol,
            max_iter=self.max_iter,
            random_state=self.random_state,
            start=self._start,
        )
        return found, objective.value()

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def n_measurements(self) -> int:
        """Number of measured updates."""
        return len(self.records)

    @property
    def n_skipped(self) -> int:
        """Number of updates that could not be measured."""
        return len(self.skipped)

    def state(self) -> dict[str, float]:
        """Return the last record as a flat dict of numbers, for any logger; empty before the first measurement."""
        return dict(self.records[-1]) if self.records else {}

    def verdict(self) -> str:
        """Return a few sentences on where the training is relative to the edge of stability."""
        if not self.records:
            return " ".join(["Nothing has been measured yet. Continue the training.", *self._said_of_skipped()])
        last = self.records[-1]
        what = "preconditioned Hessian" if self._preconditioned else "Hessian"
        said = f"After {last['n_updates']:,} updates the largest eigenvalue of the {what} is {last['eigenvalue']:.3g}"
        if not last["converged"]:
            said += " or more (the search did not converge; raise max_iter)"
        if math.isnan(last["threshold"]):
            return " ".join([f"{said}. There is no threshold to compare with.", *self._said_of_skipped()])
        late = self._late()
        place = place_of(late)
        said += f", {last['relative']:.2f} of the threshold {last['threshold']:.3g}."
        if place == "unknown":
            unknown = (
                "Where the training is relative to the edge of stability is not known, because more than half of the "
                "measurements of its second half failed."
            )
            return " ".join([said, unknown, *self._said_of_skipped()])
        notes = [far_above("It")] if place == "far above" else []
        notes.append(
            "The threshold holds for training on all samples at once. With smaller batches, their noise keeps the "
            "eigenvalue lower."
        )
        if batch_norm_layers(self.module):
            notes.append(f"The batch-norm policy of the measurement is {self.batch_norm!r}.")
        notes += self._said_of_skipped()
        share = f"{100 * share_at_edge(late):.0f} %"
        return (
            f"{said} The training is {place} the edge of stability: in {share} of the records of its second half, the "
            f"eigenvalue is at least {AT_EDGE:g} of the threshold. {' '.join(notes)}"
        )

    def _late(self) -> np.ndarray:
        """Return the eigenvalues over thresholds in the second half of the training, with NaN for skipped updates."""
        relative = {r["n_updates"]: r["relative"] for r in self.records}
        relative |= {r["n_updates"]: math.nan for r in self.skipped}
        n_updates = np.array(sorted(relative))
        return late_records(n_updates, np.array([relative[n] for n in n_updates]))

    def _said_of_skipped(self) -> list[str]:
        """Return a sentence for each reason why updates were skipped."""
        reasons = Counter(entry["reason"] for entry in self.skipped)
        return [f"{count} of the updates could not be measured, because {reason}." for reason, count in reasons.items()]

    def __str__(self) -> str:
        return self.verdict()

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> StabilityTrajectoryDisplay:
        """Plot eigenvalues and threshold against the updates, and return a `StabilityTrajectoryDisplay`."""
        if not self.records:
            raise ValueError("step must be called before plot; nothing has been measured yet.")
        columns = {name: np.array([record[name] for record in self.records]) for name in self.records[0]}
        has_batch_norm = bool(batch_norm_layers(self.module))
        display = StabilityTrajectoryDisplay(
            {"training": [stability_curve(columns)]},
            preconditioned=self._preconditioned,
            batch_norm=self.batch_norm if has_batch_norm else None,
        )
        return display.plot(ax=ax, **kwargs)
