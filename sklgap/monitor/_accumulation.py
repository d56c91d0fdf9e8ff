"""Whether gradient accumulation gives the gradient of the whole batch, and if not, why."""

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
from sklgap.objective._copy import deepcopy
from sklgap.objective._objective import WholeBatchLoss
from sklgap.objective._parameters import real, trainable_parameters

# Goes through the micro-batches of an update, and calls backward for each.
AccumulatingLoop = Callable[[nn.Module, list[Any]], Any]
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
# Relative differences below these are rounding.
_ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-3}
_SENTENCES = {
    "not_divided": (
        "the loss is not divided: the gradient is {scale:.4g} times that of the whole batch; divide every loss by the "
        "number of micro-batches, or by their share of the samples"
    ),
    "divided_twice": (
        "the loss is divided twice: the gradient is {scale:.4g} times that of the whole batch; divide once, in the "
        "loop or in the library, not in both"
    ),
    "scaled": "the gradient is {scale:.4g} times that of the whole batch: the divisor of the loss is another number",
    "short_micro_batch": (
        "a short micro-batch counts as much as a full one: weigh every loss by its share of the samples"
    ),
    "unequal_means": (
        "means over unequal numbers of targets are averaged (ignored targets, token counts): sum the losses, and "
        "divide by the number of targets of the whole batch"
    ),
    "batch_norm": (
        "batch norm uses the statistics of every micro-batch: no accumulation gives the gradient of the whole batch"
    ),
    "dropout": "dropout draws other masks: both gradients are right, and differ by chance",
    "random": "the module or the loop draws random numbers: both gradients may be right, and differ by chance",
    "clipping": "the gradient is changed between micro-batches (clipping): clip once, after the last one",
    "cleared": "the gradient is cleared between micro-batches: call zero_grad once, before the first one",
    "samples_meet": (
        "the loss of a sample depends on the samples beside it (contrastive losses, normalisation over the batch): no "
        "accumulation gives the gradient of the whole batch"
    ),
    "other": "the gradients differ for a reason that is not recognised",
}


@dataclass(frozen=True)
class AccumulationCheck:
    """What `check_accumulation` has found.

    Attributes
    ----------
    same : bool
        Whether the accumulated gradient is that of the whole batch, up to rounding.
    relative_difference : float
        Norm of the difference of the two gradients over the norm of the whole batch's; before what the loop does to the
        gradient after the last micro-batch.
    scale : float
        Size of the accumulated gradient along that of the whole batch; 1 where it is right.
    causes : tuple of str
        The recognised causes: ``"not_divided"``, ``"divided_twice"``, ``"scaled"``, ``"short_micro_batch"``,
        ``"unequal_means"``, ``"batch_norm"``, ``"dropout"``, ``"random"``, ``"clipping"``, ``"cleared"``,
        ``"samples_meet"`` or ``"other"``.
    sizes : tuple of int
        Samples of the micro-batches.
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
            f"{k} micro-batches do not give the gradient of the whole batch of {n} samples: the relative difference is "
            f"{self.relative_difference:.3g}.{causes}"
        )


def check_accumulation(
    train_step: AccumulatingLoop,
    module: nn.Module,
    batch: Any,
    sizes: Sequence[int],
    *,
    loss: BatchLoss | None = None,
) -> AccumulationCheck:
    """Check whether gradient accumulation gives the gradient of the whole batch, and say why not.

    Parameters
    ----------
    train_step : callable
        Your loop as ``train_step(module, micro_batches)``: it goes through the list of micro-batches, calls
        ``backward`` for each, and ends before ``optimizer.step()``. It must use the module that it is given.
    module : nn.Module
        The model, in the mode it is trained in. Private copies of it are used.
    batch : object
        A whole batch: a tensor, or tuples and dicts of tensors with a row a sample.
    sizes : sequence of int
        Samples of the micro-batches, in order; they add up to the batch. Let the last one be short if it is short in
        your training, and let targets be ignored where they are.
    loss : callable, default=None
        The right loss of a whole batch: a criterion of (outputs, target), or a function ``loss(module, batch)`` that
        returns the mean. None: what ``train_step(module, [batch])`` does with a single micro-batch is taken to be
        right. It must be given where ``train_step`` divides by a fixed number of micro-batches.

    Returns
    -------
    AccumulationCheck
        Printed, it names the causes it has recognised and what to do.

    Raises
    ------
    ValueError
        For sizes that do not add up, a gradient that is zero or not finite, or a ``train_step`` that does not use its
        module or changes its weights.

    Notes
    -----
    The causes are told apart by what every ``backward`` gives: as it is, with other random numbers, and with batch norm
    and dropout in evaluation mode.

    Relative differences below 1e-8 in float64, and 1e-3 in float32, are taken for rounding.

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
    check_module(module)
    check_in_reach(module)
    if not callable(train_step):
        raise TypeError(f"train_step must be a function (module, micro_batches); got {shown(train_step)}.")
    module = unwrapped(module)
    if not trainable_parameters(module):
        raise ValueError("module must have trainable parameters; it has none.")
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
    """Put ``.grad`` of the user's module aside: a loop that uses this module, and not its copy, may change it."""
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
    """Gradients of one run of the loop: what every ``backward`` has added, and what stood in ``.grad``."""

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
                f"module must have parameters in float32 or float64; got {low.pop()}: pass module.float()."
            )
        single = dtypes & {torch.float32, torch.complex64}
        self.tolerance = _ROUNDING[torch.float32 if single else torch.float64]
        self.has_batch_norm = any(isinstance(part, _BATCH_NORM) and part.training for part in module.modules())

    def result(self) -> AccumulationCheck:
        # With the seed of the whole batch a single dropout layer might draw the same masks by luck.
        accumulated, whole = self.run(self.parts, seed=1), self.reference(self.whole)
        if len(accumulated.added) != len(self.parts):
            raise ValueError(
                f"train_step must call backward once for each of the {len(self.parts)} micro-batches; it called it "
                f"{len(accumulated.added)} times."
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
        """Say whether batch norm makes the micro-batches' gradients others than those in evaluation mode add up to."""
        calm = ("dropout",)
        whole = self.reference(self.whole, calm=calm)
        alone = torch.stack([self.reference([part], calm=calm) for part in self.parts])
        return _relative(self.mixture(alone, whole) @ alone - whole, whole) > self.tolerance

    def weights(self) -> list[str]:
        """Compare what every micro-batch counts for with what it should count for, with nothing else in the way."""
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
        # A micro-batch of ignored targets alone has no gradient, and no weight that could be wrong.
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
            # The others have no gradient, and count in the mean of the means.
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
        """Return with which weights the micro-batches' own gradients add up to that of the whole batch."""
        sizes = torch.tensor(self.sizes, dtype=whole.dtype, device=whole.device)
        for weights in (sizes / sizes.sum(), torch.ones_like(sizes)):  # of means, and of sums
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
            raise ValueError("batch must have a gradient to compare with; that of the whole batch is 0.")
        return gradient

    def by_loss(self, module: nn.Module, batches: list[Any]) -> None:
        assert self.loss is not None
        self.loss(module, batches[0]).backward()

    def run(
        self, batches: list[Any], *, calm: Sequence[str] = (), seed: int = 0, train_step: AccumulatingLoop | None = None
    ) -> _Run:
        """Run the loop on a private copy of the module, with batch norm or dropout in evaluation mode if asked."""
        module = deepcopy(self.module)
        if "dropout" in calm:  # also where a function draws the masks, as in attention
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
            except Exception as error:  # a function of the user may raise anything
                raise ValueError(
                    f"{name} must run on {len(batches)} of the micro-batches, but it failed: "
                    f"{type(error).__name__}: {error}"
                ) from error
        if not run.added:
            raise ValueError(
                "train_step must call backward, and use the module that it is given; no gradient has arrived there."
            )
        if any(not torch.equal(weights[name], p.detach()) for name, p in params.items()):
            raise ValueError("train_step must end before optimizer.step(); it has changed the weights.")
        if not all(bool(torch.isfinite(g).all()) for g in run.after):
            raise ValueError("batch must have a finite gradient; that of train_step is not.")
        return run


# Weights of micro-batches that are as near as this are taken for equal: they are ratios of whole numbers.
_NEAR = 5e-3


@contextlib.contextmanager
def _recorded(params: dict[str, Tensor]) -> Iterator[_Run]:
    """Record for every ``backward`` what it adds to ``.grad``, and ``.grad`` before and after."""
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
