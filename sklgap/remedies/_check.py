"""The conversion of ``remedies``: shorthands, names, and remedies that cannot be combined."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch

from sklgap._checks import shown
from sklgap.remedies._adversarial import Adversarial
from sklgap.remedies._augmentation import Augmentation
from sklgap.remedies._base import Remedy
from sklgap.remedies._batch_augmentation import BatchAugmentation
from sklgap.remedies._entropy_sgd import EntropySGD
from sklgap.remedies._gradient_penalty import GradientPenalty
from sklgap.remedies._label_smoothing import LabelSmoothing
from sklgap.remedies._mixup import Mixup
from sklgap.remedies._proximal import Proximal
from sklgap.remedies._robust import SAM
from sklgap.remedies._sample_noise import SampleNoise
from sklgap.remedies._stability import Stability

# Each shorthand is the class with its defaults. Its name is that of the nested parameters. "asam" is the adaptive SAM
# with the radius that its first author found best on CIFAR-10 with all parameters scaled (davda54/sam, issue 37).
SHORTHANDS: dict[str, Callable[[], Remedy]] = {
    "adversarial": Adversarial,
    "asam": partial(SAM, rho=2.0, adaptive=True),
    "augmentation": Augmentation,
    "batchaugmentation": BatchAugmentation,
    "entropysgd": EntropySGD,
    "gradientpenalty": GradientPenalty,
    "labelsmoothing": LabelSmoothing,
    "mixup": Mixup,
    "proximal": Proximal,
    "sam": SAM,
    "samplenoise": SampleNoise,
    "stability": Stability,
}


def check_remedies(remedies: Iterable[Remedy | str | tuple[str, Remedy]] | None) -> list[tuple[str, Remedy]]:
    """Return named remedies.

    Parameters
    ----------
    remedies : sequence or None
        The remedies. Each item is one of three things. A `Remedy` gets the name of its class in lower case, with a
        number if that name is taken. A pair (name, Remedy) has its own name, as callbacks of skorch do. A shorthand is
        the class in lower case (``"sam"``, ``"entropysgd"``, ...) for the remedy with its defaults, or ``"asam"``.
        Case, ``-`` and ``_`` in a shorthand do not matter.

    Returns
    -------
    list of (str, Remedy)
        Pairs of name and remedy. A shorthand gives a new object in every call.
    """
    if isinstance(remedies, Remedy | str):
        raise TypeError(
            f"remedies must be a sequence of Remedy objects; got {remedies!r} alone; write ({remedies!r},)."
        )
    if remedies is not None and (not isinstance(remedies, Iterable) or hasattr(remedies, "dtype")):
        raise TypeError(f"remedies must be a sequence of Remedy objects; got {shown(remedies)}.")
    named: list[tuple[str, Remedy]] = []
    for item in () if remedies is None else remedies:
        name, remedy = _named(item)
        taken = {other for other, _ in named}
        if name in taken and isinstance(item, tuple):
            raise ValueError(f"remedies must have different names; got {name!r} twice.")
        if name in taken:
            name = next(f"{name}_{i}" for i in range(2, len(taken) + 3) if f"{name}_{i}" not in taken)
        named.append((name, remedy))
    return named


def check_together(remedies: Sequence[Remedy]) -> None:
    """Raise a ValueError if a remedy that makes no sense twice is given twice.

    Parameters
    ----------
    remedies : sequence of Remedy
        The remedies of one training.
    """
    for remedy in remedies:
        found = sum(isinstance(other, type(remedy)) for other in remedies)
        if remedy.at_most_once and found > 1:
            raise ValueError(f"remedies must hold at most one {type(remedy).__name__}; got {found}.")


def check_parts(remedies: Sequence[Remedy], micro_batch_size: int | None, data_parallel: bool) -> None:
    """Raise a ValueError if a loss that is not a mean over samples would be evaluated in too small parts.

    Parameters
    ----------
    remedies : sequence of Remedy
        The remedies of one training.
    micro_batch_size : int or None
        Largest number of samples evaluated at once.
    data_parallel : bool
        Whether several processes share each batch.
    """
    for remedy in remedies:
        if remedy.in_parts:
            continue
        name, own = type(remedy).__name__, remedy.sub_batch_size or math.inf
        if data_parallel:
            raise ValueError(
                f"data_parallel must be False with {name}, whose loss is not a mean over samples; got True."
            )
        if own > (micro_batch_size or math.inf):
            least = "" if math.isinf(own) else f" or at least {own}, the sub_batch_size,"
            raise ValueError(
                f"micro_batch_size must be None{least} with {name}, whose loss is not a mean over samples; "
                f"got {micro_batch_size}."
            )
        for other in remedies:
            if own > (other.sub_batch_size or math.inf):
                raise ValueError(
                    f"remedies must not cut batches into smaller parts than {name} does, whose loss is not a mean "
                    f"over samples; got sub_batch_size={other.sub_batch_size} in {type(other).__name__}."
                )


def check_line_search(remedies: Sequence[Remedy], optimizer: torch.optim.Optimizer) -> None:
    """Raise a ValueError for an optimiser with a line search if a remedy changes the gradient.

    A training step reports the loss without penalties. A line search would compare it with the gradient with penalties.
    """
    search = next((group["line_search_fn"] for group in optimizer.param_groups if group.get("line_search_fn")), None)
    for remedy in remedies:
        if search is not None and (remedy.changes_gradient or remedy.changes_factor):
            raise ValueError(
                f"optimizer must have line_search_fn=None with {type(remedy).__name__}, whose gradient is not that of "
                f"the loss which a line search compares; got {search!r}."
            )


def _named(item: Any) -> tuple[str, Remedy]:
    """Return name and remedy of one item. A name that the user did not choose may be taken already."""
    if isinstance(item, str):
        name = item.lower().replace("-", "").replace("_", "")
        if name not in SHORTHANDS:
            raise ValueError(
                f"remedies must hold Remedy objects or names among {', '.join(SHORTHANDS)}; got {shown(item)}."
            )
        return name, SHORTHANDS[name]()
    name, remedy = item if isinstance(item, tuple) and len(item) == 2 else (type(item).__name__.lower(), item)
    if not isinstance(name, str) or not isinstance(remedy, Remedy):
        raise TypeError(f"remedies must hold Remedy objects or pairs (name, Remedy); got {shown(item)}.")
    if "__" in name:
        raise ValueError(f"remedies must have names without '__'; got {name!r}.")
    return name, remedy
