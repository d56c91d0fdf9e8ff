"""A check whether gradient accumulation gives the gradient of the whole batch, with the reason if it does not."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklgap._checks import check_module, is_flat, is_integer, shown
from sklgap._random import undisturbed
from sklgap.monitor._batches import check_in_reach, number_of_rows, parts_of
from sklgap.monitor._loss import BatchLoss, loss_of_batch
from sklgap.monitor._module import unchanged, unwrapped
from sklgap.objective._autodiff import check_gradients_allowed
from sklgap.objective._copy import deepcopy
from sklgap.objective._gradient_hooks import check_no_gradient_hooks
from sklgap.objective._objective import WholeBatchLoss
from sklgap.objective._parameters import real, trainable_parameters

# A function that goes through the micro-batches of an update and calls backward for each.
AccumulatingLoop = Callable[[nn.Module, list[Any]], Any]
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
# Relative differences below these are rounding.
_ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-3}
_SENTENCES = {
    "not_divided": (
        "the loss is not divided, so the gradient is {scale:.4g} times that of the whole batch. Divide every loss by "
        "the number of micro-batches, or multiply it by its share of the samples"
    ),
    "divided_twice": (
        "the loss is divided twice, so the gradient is {scale:.4g} times that of the whole batch. Divide once, in "
        "the loop or in the library, not in both"
    ),
    "scaled": (
        "the gradient is {scale:.4g} times that of the whole batch. Check the number by which the loss is divided"
    ),
    "short_micro_batch": (
        "a short micro-batch counts as much as a full one. Multiply every loss by its share of the samples"
    ),
    "unequal_means": (
        "the loop averages means over unequal numbers of targets (ignored targets, token counts). Sum the losses, "
        "and divide by the number of targets of the whole batch"
    ),
    "batch_norm": (
        "batch norm uses the statistics of each micro-batch, so no accumulation gives the gradient of the whole batch"
    ),
    "dropout": "dropout draws different masks. Both gradients are right, and they differ by chance",
    "random": "the module or the loop draws random numbers. Both gradients may be right, and they differ by chance",
    "clipping": (
        "the gradient is changed between micro-batches, for example by clipping. Clip once, after the last micro-batch"
    ),
    "cleared": "the gradient is cleared between micro-batches. Call zero_grad once, before the first micro-batch",
    "samples_meet": (
        "the loss of a sample depends on the other samples of its batch (contrastive losses, normalisation over the "
        "batch), so no accumulation gives the gradient of the whole batch"
    ),
    "other": "the gradients differ for a reason that this check does not recognise",
}


@dataclass(frozen=True)
class AccumulationCheck:
    """The result of `check_accumulation`.

    Attributes
    ----------
    same : bool
        Whether the accumulated gradient is that of the whole batch, up to rounding.
    relative_difference : float
        Norm of the difference between the two gradients, divided by the norm of the gradient of the whole batch. Both
        are taken before anything that the loop does to the gradient after the last micro-batch.
    scale : float
        Length of the accumulated gradient along the gradient of the whole batch, in multiples of the latter. It is 1 if
        the accumulation is right.
    causes : tuple of str
        The recognised causes: ``"not_divided"``, ``"divided_twice"``, ``"scaled"``, ``"short_micro_batch"``,
        ``"unequal_means"``, ``"batch_norm"``, ``"dropout"``, ``"random"``, ``"clipping"``, ``"cleared"``,
        ``"samples_meet"`` or ``"other"``.
    sizes : tuple of int
        Number of samples of each micro-batch.
    """

    same: bool
    relative_difference: float
    scale: float
    causes: tuple[str, ...]
    sizes: tuple[int, ...]

    def __str__(self) -> str:
        n, k = sum(self.sizes), len(self.sizes)
        if self.same:
            return (
                f"{k} micro-batches give the gradient of the whole batch of {n} samples (relative difference "
                f"{self.relative_difference:.1e})."
            )
        causes = "".join(f"\n  {cause}: {_SENTENCES[cause].format(scale=self.scale)}." for cause in self.causes)
        return (
            f"{k} micro-batches do not give the gradient of the whole batch of {n} samples (relative difference "
            f"{self.relative_difference:.3g}).{causes}"
        )


def check_accumulation(
    train_step: AccumulatingLoop,
    module: nn.Module,
    batch: Any,
    sizes: Sequence[int],
    *,
    loss: BatchLoss | None = None,
) -> AccumulationCheck:
    """Check whether gradient accumulation gives the gradient of the whole batch, and name the causes if it does not.

    Parameters
    ----------
    train_step : callable
        Your loop as a function ``train_step(module, micro_batches)``. It goes through the list of micro-batches, calls
        ``backward`` for each, and ends before ``optimizer.step()``. It must use the given module.
    module : nn.Module
        The model, in the mode in which you train it. The check uses private copies of it.
    batch : object
        A whole batch: a tensor, or tuples and dicts of tensors with one row per sample.
    sizes : sequence of int
        Number of samples of each micro-batch, in order. They add up to the batch. Make the last micro-batch short, and
        ignore targets, if your training does.
    loss : callable, default=None
        The right loss of a whole batch: a criterion of (outputs, target), or a function ``loss(module, batch)`` that
        returns the mean. None takes the result of ``train_step(module, [batch])``, with a single micro-batch, as right.
        ``loss`` is required if ``train_step`` divides by a fixed number of micro-batches.

    Returns
    -------
    AccumulationCheck
        The result. If you print it, it names the recognised causes and what to do about them.

    Raises
    ------
    ValueError
        If the sizes do not add up to the batch, if a gradient is zero or not finite, or if ``train_step`` does not use
        its module or changes its weights.

    Notes
    -----
    The check distinguishes the causes by the gradient of each ``backward``: as it is, with other random numbers, and
    with batch norm and dropout in evaluation mode.

    Relative differences below 1e-8 in float64, and 1e-3 in float32, count as rounding.

    Examples
    --------
    >>> import torch
    >>> from sklgap.monitor import check_accumulation
    >>> _ = torch.manual_seed(0)
    >>> net, loss = torch.nn.Linear(3, 1).double(), torch.nn.MSELoss()
    >>> batch = torch.randn(10, 3).double(), torch.randn(10, 1).double()
    >>> def train_step(module, micro_batches):
    ...     for X, y in micro_batches:
    ...         (loss(module(X), y) / len(micro_batches)).backward()
    >>> check_accumulation(train_step, net, batch, [5, 5]).same
    True
    >>> check_accumulation(train_step, net, batch, [4, 4, 2]).causes
    ('short_micro_batch',)
    """
    check_gradients_allowed()
    check_module(module)
    check_in_reach(module)
    if not callable(train_step):
        raise TypeError(f"train_step must be a function (module, micro_batches); got {shown(train_step)}.")
    module = unwrapped(module)
    check_no_gradient_hooks(module, "module", "remove it for the check")
    if not trainable_parameters(module):
        raise ValueError("module must have at least one trainable parameter; got 0.")
    n = number_of_rows(batch)
    listed = list(sizes) if isinstance(sizes, list | tuple | np.ndarray) and is_flat(sizes) else []
    if len(listed) < 2 or not all(is_integer(size, 1) for size in listed) or sum(listed) != n:
        raise ValueError(
            f"sizes must be at least 2 integers of at least 1 that add up to the {n} samples of batch; "
            f"got {shown(sizes)}."
        )
    check = _Check(train_step, module, batch, [int(size) for size in listed], loss_of_batch(loss))
    with unchanged(module, trainable_parameters(module)), _without_gradients(module):
        return check.result()


@contextlib.contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """Set ``.grad`` of the user's module aside, because a loop may use this module instead of its copy."""
    saved = [(p, p.grad) for p in module.parameters()]
    for p, _ in saved:
        p.grad = None
    try:
        yield
    finally:
        for p, gradient in saved:
            p.grad = gradient


# -- the runs -------------------------------------------------------------------------------------------------------


@dataclass
class _Run:
    """The gradients of one run of the loop: the share of every ``backward``, and ``.grad`` before and after it."""

    added: list[Tensor]
    before: list[Tensor]
    after: list[Tensor]

    @property
    def total(self) -> Tensor:
        return self.after[-1]


class _Check:
    def __init__(
        self, train_step: AccumulatingLoop, module: nn.Module, batch: Any, sizes: list[int], loss: WholeBatchLoss | None
    ) -> None:
        self.train_step, self.module, self.loss = train_step, module, loss
        self.whole, self.sizes = [batch], sizes
        self.parts = list(parts_of(batch, sum(sizes), sizes))
        dtypes = {p.dtype for p in trainable_parameters(module).values()}
        low = dtypes - {torch.float32, torch.float64, torch.complex64, torch.complex128}
        if low:
            raise ValueError(
                f"module must have parameters in float32 or float64; got {low.pop()}; pass module.float()."
            )
        single = dtypes & {torch.float32, torch.complex64}
        self.tolerance = _ROUNDING[torch.float32 if single else torch.float64]
        self.has_batch_norm = any(isinstance(part, _BATCH_NORM) and part.training for part in module.modules())

    def result(self) -> AccumulationCheck:
        # The seed differs from that of the whole batch, because a single dropout layer could draw the same masks by
        # chance.
        accumulated, whole = self.run(self.parts, seed=1), self.reference(self.whole)
        if len(accumulated.added) != len(self.parts):
            raise ValueError(
                f"train_step must call backward once for each of the {len(self.parts)} micro-batches; it called "
                f"backward {len(accumulated.added)} times."
            )
        difference = _relative(accumulated.total - whole, whole)
        causes = self.causes(accumulated)
        scale = float(accumulated.total @ whole / (whole @ whole))
        same = difference <= self.tolerance
        if not same and not causes:
            causes = ["other"]
        return AccumulationCheck(same, difference, scale, () if same else tuple(causes), tuple(self.sizes))

    def causes(self, accumulated: _Run) -> list[str]:
        found = []
        pairs = list(zip(accumulated.after, accumulated.before[1:], strict=False))
        changed = [_relative(later - earlier, earlier) > self.tolerance for earlier, later in pairs]
        if any(changed):
            cleared = all(not later.any() for (_, later), other in zip(pairs, changed, strict=True) if other)
            found.append("cleared" if cleared else "clipping")
        if self.differs(self.reference(self.whole), self.reference(self.whole, seed=1)):
            calm = not self.differs(
                self.reference(self.whole, calm=("dropout",)), self.reference(self.whole, calm=("dropout",), seed=1)
            )
            found.append("dropout" if calm else "random")
            if not calm:
                return found
        if self.has_batch_norm and self.statistics_matter():
            found.append("batch_norm")
        return found + self.weights()

    def statistics_matter(self) -> bool:
        """Return whether batch norm in training mode prevents the micro-batches from adding up to the whole batch."""
        calm = ("dropout",)
        whole = self.reference(self.whole, calm=calm)
        alone = torch.stack([self.reference([part], calm=calm) for part in self.parts])
        return _relative(self.mixture(alone, whole) @ alone - whole, whole) > self.tolerance

    def weights(self) -> list[str]:
        """Compare the weight of every micro-batch with the right weight, with batch norm and dropout switched off."""
        calm = ("batch_norm", "dropout")
        whole = self.reference(self.whole, calm=calm)
        alone = torch.stack([self.reference([part], calm=calm) for part in self.parts])
        added = torch.stack(self.run(self.parts, calm=calm).added)
        right = self.mixture(alone, whole)
        if _relative(right @ alone - whole, whole) > self.tolerance:
            return ["samples_meet"]
        if _relative(added.sum(dim=0) - whole, whole) <= self.tolerance:
            return []
        squares = alone.square().sum(dim=1)
        # A micro-batch in which all targets are ignored has no gradient, so its weight cannot be wrong.
        seen = squares > squares.max() * 1e-16
        given = ((added * alone).sum(dim=1) / squares.clamp_min(torch.finfo(squares.dtype).tiny))[seen]
        right, k = right[seen], len(self.parts)
        unequal = _relative(right - right.mean(), right) > _NEAR
        proportional = self.near(given / given.sum(), right / right.sum())
        found = []
        if not proportional:
            by_samples = torch.tensor(self.sizes, dtype=right.dtype, device=right.device)[seen] / sum(self.sizes)
            follows_sizes = self.near(right, by_samples)
            if self.near(given / given.mean(), torch.ones_like(given)) and unequal:
                found.append("short_micro_batch" if follows_sizes else "unequal_means")
            elif self.near(given / given.sum(), by_samples / by_samples.sum()):
                found.append("unequal_means")
            else:
                return ["other"]
        if len(given) < k and proportional and abs(float(given.sum()) * k / len(given) - 1) < _NEAR:
            # The other micro-batches have no gradient, but they count in the mean of the means.
            return ["unequal_means"]
        total = float(given.sum()) / (len(given) / k if not proportional else float(right.sum()))
        if abs(total - 1) > _NEAR:
            name = "scaled"
            if abs(total / k - 1) < _NEAR:
                name = "not_divided"
            elif abs(total * k - 1) < _NEAR:
                name = "divided_twice"
            found.insert(0, name)
        return found or ["other"]

    def mixture(self, alone: Tensor, whole: Tensor) -> Tensor:
        """Return the weights with which the gradients of the micro-batches add up to that of the whole batch."""
        sizes = torch.tensor(self.sizes, dtype=whole.dtype, device=whole.device)
        for weights in (sizes / sizes.sum(), torch.ones_like(sizes)):  # for means, and for sums
            if _relative(weights @ alone - whole, whole) <= self.tolerance:
                return weights
        return torch.linalg.lstsq(alone.T.cpu(), whole.cpu().unsqueeze(1), driver="gelsd").solution[:, 0].to(whole)

    @staticmethod
    def near(first: Tensor, second: Tensor) -> bool:
        return _relative(first - second, second) < _NEAR

    def differs(self, first: Tensor, second: Tensor) -> bool:
        return _relative(first - second, first) > self.tolerance

    def reference(self, batches: list[Any], *, calm: Sequence[str] = (), seed: int = 0) -> Tensor:
        """Return the right gradient of a single micro-batch."""
        if self.loss is None:
            gradient = self.run(batches, calm=calm, seed=seed).total
        else:
            gradient = self.run(batches, calm=calm, seed=seed, train_step=self.by_loss).total
        if batches is self.whole and not gradient.any():
            raise ValueError("batch must have a gradient to compare with; the gradient of the whole batch is 0.")
        return gradient

    def by_loss(self, module: nn.Module, batches: list[Any]) -> None:
        assert self.loss is not None
        self.loss(module, batches[0]).backward()

    def run(
        self, batches: list[Any], *, calm: Sequence[str] = (), seed: int = 0, train_step: AccumulatingLoop | None = None
    ) -> _Run:
        """Run the loop on a private copy of the module, with batch norm or dropout in evaluation mode if asked."""
        module = deepcopy(self.module)
        if "dropout" in calm:  # also if a function draws the masks, as in attention
            training = [part for part in module.modules() if isinstance(part, _BATCH_NORM) and part.training]
            module.eval()
            for part in training:
                part.train("batch_norm" not in calm)
        module.zero_grad(set_to_none=True)
        params = trainable_parameters(module)
        weights = {name: p.detach().clone() for name, p in params.items()}
        name = "train_step" if train_step is None else "loss"
        with undisturbed(seed), torch.enable_grad(), _recorded(params) as run:
            try:
                (train_step or self.train_step)(module, list(batches))
            except Exception as error:  # the user's function may raise any exception
                raise ValueError(
                    f"{name} must run on {len(batches)} of the micro-batches, but it failed: "
                    f"{type(error).__name__}: {error}"
                ) from error
        if not run.added:
            raise ValueError(
                "train_step must call backward, and use the module that it is given; no gradient arrived in that "
                "module."
            )
        if any(not torch.equal(weights[name], p.detach()) for name, p in params.items()):
            raise ValueError("train_step must end before optimizer.step(); it has changed the weights.")
        if not all(bool(torch.isfinite(g).all()) for g in run.after):
            raise ValueError("batch must have a finite gradient; the gradient of train_step is not finite.")
        return run


# Weights of micro-batches that differ by less than this count as equal; they are ratios of whole numbers.
_NEAR = 5e-3


@contextlib.contextmanager
def _recorded(params: dict[str, Tensor]) -> Iterator[_Run]:
    """Record for every ``backward`` what it adds to ``.grad``, and ``.grad`` before and after it."""
    run = _Run([], [], [])
    arrived: dict[str, Tensor] = {}
    before: list[Tensor] = []

    def standing() -> Tensor:
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad.detach().to_dense() for p in params.values()]
        return torch.cat([real(piece).reshape(-1).double() for piece in pieces])

    def finish() -> None:
        pieces = [arrived.get(name, torch.zeros_like(p)) for name, p in params.items()]
        run.added.append(torch.cat([real(piece).reshape(-1).double() for piece in pieces]))
        run.before.append(before.pop())
        run.after.append(standing())
        arrived.clear()

    def hook(name: str) -> Callable[[Tensor], None]:
        def arrive(gradient: Tensor) -> None:
            if not before:  # the first parameter of this backward
                before.append(standing())
                torch.autograd.Variable._execution_engine.queue_callback(finish)
            arrived[name] = gradient.detach().to_dense().clone()

        return arrive

    handles = [p.register_hook(hook(name)) for name, p in params.items()]
    try:
        yield run
    finally:
        for handle in handles:
            handle.remove()


def _relative(difference: Tensor, whole: Tensor) -> float:
    norm = float(whole.norm())
    size = float(difference.norm())
    return size / norm if norm else (math.inf if size else 0.0)
