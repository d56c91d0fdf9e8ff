"""The loss surface: f(theta) = mean_i loss(net_theta(x_i), y_i) over fixed data, as an object to measure."""

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sklgap._checks import WrongArgument, check_arguments, check_module, shown
from sklgap._typing import Aux, Batch, Criterion, Params
from sklgap.objective import _batch_norm
from sklgap.objective._autodiff import gradient_of, hessian_operator, hessian_vector_product, row_gradient_norms
from sklgap.objective._data import Data, Rows
from sklgap.objective._loss import is_classification, make_loss_fn, n_correct
from sklgap.objective._parameters import flatten, trainable_parameters, unflatten
from sklgap.objective._restricted import RestrictedObjective

if TYPE_CHECKING:
    from sklgap.objective._subspace import Subspace

Vector = Tensor | np.ndarray

# Gradients of single rows are held in blocks of at most so many numbers (32 MB in float32, about a processor's cache)
# and so many rows.
_NUMBERS_AT_ONCE = 2**23
_ROWS_AT_ONCE = 256


class Evaluation(NamedTuple):
    """Mean loss, and accuracy as a fraction (NaN where the outputs are not one score per class)."""

    loss: float
    accuracy: float


class Objective:
    r"""The mean loss of a module on fixed data as a function of its parameters.

    .. math:: f(\theta) = \frac{1}{n} \sum_{i=1}^n \ell(\mathrm{net}_\theta(x_i), y_i)

    Everything this package measures (sharpness, curvature, loss along a line) is measured on such an object. The
    module given is copied and never modified: neither weights nor buffers, ``.grad``, train/eval mode or the global
    random state. Dropout is always off.

    Parameters
    ----------
    module : torch.nn.Module
        Maps X to the outputs the criterion takes. ``theta`` holds its parameters with ``requires_grad=True``, in the
        order of ``module.named_parameters()``; frozen parameters are constants.
    criterion : torch.nn.Module or callable
        Maps (y_pred, y) to the mean loss of the rows. A torch loss module is copied and evaluated in float64 on the
        outputs, so that small losses keep their digits; any other callable is called as it is. A module with
        ``reduction="sum"`` or ``"none"`` is refused. One with class weights is averaged within each chunk by its
        weights, and over chunks by their rows, as skorch's ``loss_scoring`` does over batches.
    data : tuple (X, y) of array-like or tensors
        X of shape (n_samples, ...), y of shape (n_samples, ...).
    batch_norm : {"batch", "population", "running"}, default="batch"
        Batch statistics over fixed chunks of the data (the choice of the paper), statistics recomputed over the whole
        data set at the point measured, or the module's running buffers. See Notes.
    chunk_size : int, default=5000
        Rows evaluated at once (5,000: the released code of the paper). The data are cut into
        ceil(n_samples / chunk_size) chunks whose sizes differ by at most one row, drawn by a fixed permutation (rows
        sorted by class would make one-class chunks, whose batch statistics are meaningless), and weighted exactly.
    dtype : torch.dtype, default=None
        ``torch.float32`` or ``torch.float64`` for parameters and data; None: as the module's parameters. Sums over
        chunks are accumulated in float64 in either case.
    device : str or torch.device, default=None
        None: where the module is. The data are moved there once and stay.

    Attributes
    ----------
    theta0 : Tensor of shape (n_params,)
        The module's own parameters.
    n_params, n_samples : int
        Dimension of theta, and number of rows.
    shapes : list of tuples
        Shapes of the parameters that theta holds, in order.
    batch_norm, chunk_size, dtype, device
        As given, resolved.
    batch_statistics : bool
        Whether batch norm makes the loss of a row depend on the rows beside it.

    Raises
    ------
    ValueError
        For a module without trainable parameters, unequal lengths of X and y, no rows, batch statistics over chunks
        of one row, or a parameter outside its allowed values.

    Notes
    -----
    One value costs a forward pass over the data, one gradient a forward and a backward pass, one Hessian-vector product
    about three gradients (two by `hessian_operator` on one chunk). Under ``"population"`` the statistics are functions
    of theta, and gradients are the exact ones, through the statistics: a value costs two forward passes, a gradient
    about two plain ones; a Hessian-vector product holds the graph of the *whole* data set in memory. Memory is that of
    one chunk's graph plus a few vectors of n_params, whatever the number of evaluations. With a single chunk
    ``"batch"`` and ``"population"`` are the same function.

    References
    ----------
    Keskar et al., On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima, ICLR 2017,
    Sections 1 and 2.2.

    Examples
    --------
    >>> import torch
    >>> from sklgap.objective import Objective
    >>> X, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
    >>> net = torch.nn.Linear(4, 2)
    >>> f = Objective(net, torch.nn.CrossEntropyLoss(), (X, y))
    >>> f.n_params
    10
    >>> value, gradient = f.gradient(torch.zeros(10))
    >>> round(value, 4), tuple(gradient.shape)
    (0.6931, (10,))
    """

    def __init__(
        self,
        module: nn.Module,
        criterion: Criterion,
        data: tuple[Any, Any],
        *,
        batch_norm: str = "batch",
        chunk_size: int = 5000,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        check_arguments(Objective.__init__, locals())
        self.batch_norm = _batch_norm.check_batch_norm(batch_norm)
        self.chunk_size = _check_chunk_size(chunk_size)
        check_module(module)
        own = trainable_parameters(module)
        if not own:
            raise ValueError("module must have at least one parameter that requires a gradient; it has none.")
        first = next(iter(own.values()))
        self.dtype = _check_dtype(first.dtype if dtype is None else dtype)
        self.device = first.device if device is None else _check_device(device)
        self._module = copy.deepcopy(module).to(device=self.device, dtype=self.dtype).eval()
        self._criterion = _double_precision(criterion, self.device)
        self._like = trainable_parameters(self._module)
        self.theta0 = flatten(self._like).detach()
        self.n_params = self.theta0.numel()
        self.shapes = [tuple(p.shape) for p in self._like.values()]
        self._data = Data(data, self.chunk_size, self.dtype, self.device)
        self._chunks, self._shares, self.n_samples = self._data.chunks, self._data.shares, self._data.n_samples

        self._tap = None
        self.batch_statistics = False
        if _batch_norm.batch_norm_layers(self._module):
            self.batch_statistics = self.batch_norm != "running"
            if self.batch_norm != "running" and min(len(chunk.X) for chunk in self._chunks) < 2:
                raise ValueError(
                    f"batch_norm={batch_norm!r} needs at least two rows in every chunk; "
                    f"got {self.n_samples} rows in {len(self._chunks)} chunks."
                )
            if self.batch_norm == "batch":
                _batch_norm.use_batch_statistics(self._module)
            elif self.batch_norm == "population":
                self._tap = _batch_norm.StatisticsTap(self._module)
        self._loss_fn = make_loss_fn(self._module, self._criterion)

    def value(self, theta: Vector | None = None) -> float:
        """Return f(theta), at the module's own parameters by default."""
        return self.evaluate(theta).loss

    def evaluate(self, theta: Vector | None = None) -> Evaluation:
        """Return mean loss and accuracy at ``theta``, at the module's own parameters by default."""
        theta = self._check_theta(theta)
        with torch.no_grad(), self._statistics_of(theta):
            results = [self._evaluate_chunk(theta, chunk) for chunk in self._chunks]
        correct = torch.stack([correct for _, correct, _ in results]).sum()
        accuracy = correct.item() / self.n_samples if all(c for _, _, c in results) else float("nan")
        return Evaluation(self._mean([loss for loss, _, _ in results]), accuracy)

    def gradient(self, theta: Vector | None = None) -> tuple[float, Tensor]:
        """Return (f(theta), its gradient of shape (n_params,)), at the module's own parameters by default."""
        theta = self._check_theta(theta)
        if self._tap is not None:
            return self._population_gradient(theta)
        losses = []
        total = torch.zeros_like(theta, dtype=_wide(self.device))
        for share, chunk in zip(self._shares, self._chunks, strict=True):
            loss, gradient = gradient_of(partial(self._loss, chunk=chunk), theta)
            losses.append(loss)
            total.add_(gradient, alpha=share)
        return self._mean(losses), total.to(self.dtype)

    def hvp(self, v: Vector, theta: Vector | None = None) -> Tensor:
        """Return the Hessian at ``theta`` times ``v``, both of shape (n_params,)."""
        theta, v = self._check_theta(theta), self._check_theta(v)
        if self._tap is not None:
            return hessian_vector_product(self._population_loss, theta, v)
        total = torch.zeros_like(theta, dtype=_wide(self.device))
        for share, chunk in zip(self._shares, self._chunks, strict=True):
            product = hessian_vector_product(partial(self._loss, chunk=chunk), theta, v)
            total.add_(product, alpha=share)
        return total.to(self.dtype)

    def hessian_operator(self, theta: Vector | None = None) -> Callable[[Vector], Tensor]:
        """Return the function v -> H v at ``theta``: for many products at one point.

        Where the data are one chunk, or the policy is ``"population"``, it keeps the graph of the gradient, and a
        product costs two thirds of `hvp`; the memory, that of one product, is held until the function is dropped.
        """
        theta = self._check_theta(theta).clone()
        if self._tap is None and len(self._chunks) > 1:
            return lambda v: self.hvp(v, theta)
        loss = partial(self._loss, chunk=self._chunks[0]) if self._tap is None else self._population_loss
        product = hessian_operator(loss, theta)
        return lambda v: product(self._check_theta(v))

    def batch_gradient(self, rows: Rows, theta: Vector | None = None) -> tuple[float, Tensor]:
        """Return (mean loss, its gradient of shape (n_params,)) of a mini-batch: the rows at these positions.

        Batch norm uses the statistics of these rows, as in training, or the buffers under ``"running"``.
        """
        theta = self._check_theta(theta)
        batch = self._data.take(rows)
        # Only rows that depend on each other need one graph.
        size = len(batch.X) if self.batch_statistics else self.chunk_size
        losses, total = [], torch.zeros_like(theta, dtype=_wide(self.device))
        for part in map(Batch, batch.X.split(size), batch.y.split(size)):
            loss, gradient = gradient_of(partial(self._loss, chunk=part), theta)
            losses.append(len(part.X) / len(batch.X) * loss)
            total.add_(gradient, alpha=len(part.X) / len(batch.X))
        if self._tap is not None:
            self._tap.take()
        return float(torch.stack(losses).sum()), total.to(self.dtype)

    def row_gradient_norms(self, rows: Rows, theta: Vector | None = None) -> Tensor:
        """Return the Euclidean norm of the gradient of each row's own loss, of shape (len(rows),)."""
        if self.batch_statistics:
            raise ValueError(f"batch_norm must be 'running' for the gradients of single rows; got {self.batch_norm!r}.")
        params = unflatten(self._check_theta(theta), self._like)

        def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
            return self._loss_fn(params, {}, Batch(x[None], y[None]))[0]

        size = max(1, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // self.n_params))
        blocks = (self._data.take(block) for block in torch.as_tensor(rows).split(size))
        return torch.cat([row_gradient_norms(loss, params, *block[:2]).to(_wide(self.device)) for block in blocks])

    def restrict(self, subspace: "Subspace") -> RestrictedObjective:
        """Return f on the affine subspace z -> theta0 + A z, with the same methods in z."""
        return RestrictedObjective(self, subspace)

    def population_statistics(self, theta: Vector | None = None) -> _batch_norm.Statistics:
        """Return mean and variance of the input of every batch-norm layer over the data; needs ``"population"``."""
        if self._tap is None:
            return {}
        with torch.no_grad():
            return self._pooled(self._check_theta(theta))

    # -- one chunk ------------------------------------------------------------------------------------------------

    def _mean(self, losses: list[Tensor]) -> float:
        """Return the mean over all rows: one transfer from the device, the sum in float64."""
        return float(np.dot(self._shares, torch.stack(losses).cpu().double().numpy()))

    def _forward(self, theta: Tensor, chunk: Batch) -> tuple[Tensor, Aux]:
        loss, aux = self._loss_fn(unflatten(theta, self._like), {}, chunk)
        if loss.ndim:
            raise ValueError(f"criterion must return the mean loss as a scalar; got shape {tuple(loss.shape)}.")
        return loss, aux

    def _loss(self, theta: Tensor, chunk: Batch) -> Tensor:
        return self._forward(theta, chunk)[0]

    def _evaluate_chunk(self, theta: Tensor, chunk: Batch) -> tuple[Tensor, Tensor, bool]:
        loss, aux = self._forward(theta, chunk)
        classification = is_classification(aux.y_pred, chunk.y)
        correct = n_correct(aux.y_pred, chunk.y) if classification else torch.zeros((), device=self.device)
        return loss, correct, classification

    def _check_theta(self, theta: Vector | None) -> Tensor:
        if theta is None:
            return self.theta0
        theta = torch.as_tensor(theta, dtype=self.dtype, device=self.device)
        if theta.shape != self.theta0.shape:
            raise ValueError(f"theta must have shape ({self.n_params},); got {tuple(theta.shape)}.")
        return theta.detach()

    # -- population statistics: f depends on theta through them too -------------------------------------------------

    def _collect(self, theta: Tensor) -> list[dict[str, list[tuple[Tensor, Tensor]]]]:
        assert self._tap is not None
        self._tap.take()  # what an evaluation that was interrupted left behind
        collected = []
        for chunk in self._chunks:
            self._forward(theta, chunk)
            collected.append(self._tap.take())
        return collected

    def _pooled(self, theta: Tensor) -> _batch_norm.Statistics:
        return _batch_norm.pool(self._collect(theta), self._shares)

    def _statistics_of(self, theta: Tensor) -> "_Given":
        return _Given(self._tap, None if self._tap is None else self._pooled(theta))

    def _population_loss(self, theta: Tensor) -> Tensor:
        with _Given(self._tap, self._pooled(theta)):
            losses = [self._loss(theta, chunk) for chunk in self._chunks]
        return torch.stack([share * loss for share, loss in zip(self._shares, losses, strict=True)]).sum()

    def _population_gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """Return value and exact gradient with one chunk's graph in memory at a time.

        With s_c(theta) the statistics of chunk c and S = pool(s_1, ..., s_C), f = sum_c w_c L_c(theta, S). First the
        partial gradients in theta and in S, then the latter through the pool and through each chunk's s_c(theta).
        """
        assert self._tap is not None
        with torch.no_grad():
            collected = self._collect(theta)
        leaves = [
            {k: [(m.requires_grad_(), v.requires_grad_()) for m, v in s] for k, s in c.items()} for c in collected
        ]
        pooled = _batch_norm.pool(leaves, self._shares)
        given = {k: (m.detach().requires_grad_(), v.detach().requires_grad_()) for k, (m, v) in pooled.items()}
        point = theta.detach().requires_grad_()

        losses = []
        total = torch.zeros_like(theta, dtype=_wide(self.device))
        inputs = [point] + _tensors(given.values())
        from_pool = [torch.zeros_like(t) for t in inputs[1:]]
        with _Given(self._tap, given):
            for share, chunk in zip(self._shares, self._chunks, strict=True):
                loss = self._loss(point, chunk)
                gradients = torch.autograd.grad(loss, inputs)
                losses.append(loss.detach())
                total.add_(gradients[0], alpha=share)
                for accumulated, g in zip(from_pool, gradients[1:], strict=True):
                    accumulated.add_(g, alpha=share)

        flat_leaves = [t for c in leaves for s in c.values() for t in _tensors(s)]
        through_pool = iter(torch.autograd.grad(_tensors(pooled.values()), flat_leaves, grad_outputs=from_pool))
        for chunk in self._chunks:
            self._forward(point, chunk)
            own = [t for s in self._tap.take().values() for t in _tensors(s)]
            pairs = [(t, next(through_pool)) for t in own]
            moving = [(t, outer) for t, outer in pairs if t.requires_grad]  # not so before the first trained layer
            if moving:
                tensors, outers = zip(*moving, strict=True)
                total.add_(torch.autograd.grad(tensors, point, grad_outputs=outers)[0])
        return self._mean(losses), total.to(self.dtype)


class _Given:
    """Within it, batch norm uses the statistics given; nothing happens without a tap."""

    def __init__(self, tap: _batch_norm.StatisticsTap | None, statistics: _batch_norm.Statistics | None) -> None:
        self.tap, self.statistics = tap, statistics

    def __enter__(self) -> None:
        if self.tap is not None:
            self.tap.given = self.statistics

    def __exit__(self, *exception: object) -> None:
        if self.tap is not None:
            self.tap.given = None


def _tensors(pairs: Any) -> list[Tensor]:
    return [tensor for pair in pairs for tensor in pair]


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's devices know no float64


def _double_precision(criterion: Criterion, device: torch.device) -> Criterion:
    if isinstance(criterion, type) or not callable(criterion):
        raise TypeError(
            f"criterion must be a function of (y_pred, y), such as CrossEntropyLoss(); got {shown(criterion)}."
        )
    if not isinstance(criterion, nn.Module):
        return criterion
    if getattr(criterion, "reduction", "mean") != "mean":
        raise ValueError(f"criterion must have reduction='mean'; got reduction={criterion.reduction!r}.")
    wide = _wide(device)
    exact = copy.deepcopy(criterion).to(device=device, dtype=wide)

    def in_double_precision(y_pred: Tensor, y: Tensor) -> Tensor:
        return exact(y_pred.to(wide), y.to(wide) if torch.is_floating_point(y) else y)

    return in_double_precision


def _check_chunk_size(chunk_size: int) -> int:
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int | np.integer) or chunk_size < 1:
        raise ValueError(f"chunk_size must be an integer of at least 1; got {chunk_size!r}.")
    return int(chunk_size)


def _check_dtype(dtype: torch.dtype) -> torch.dtype:
    if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64; got {shown(dtype)}.")
    return dtype


def _check_device(device: Any) -> torch.device:
    if isinstance(device, str | torch.device):
        try:
            torch.empty(0, device=device)
            return torch.device(device)
        except (RuntimeError, AssertionError, NotImplementedError):  # unknown, or not there
            pass
    raise WrongArgument(f"device must be None or a torch device of this machine, such as 'cpu'; got {shown(device)}.")
