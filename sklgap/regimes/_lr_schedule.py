r"""The learning rate during a training: gradual warm-up to the scaled rate, and drops at milestones.

Warm-up follows Goyal et al. (2017), Section 2.2: equal steps, one per update, from the rate :math:`\eta` of the small
batch to the scaled rate :math:`k\eta` over the first 5 epochs. Milestones that move with the number of updates follow
Hoffer et al. (2017), Section 5.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sklgap._checks import is_number, shown
from sklgap._typing import LRScaling
from sklgap.regimes._lr_scaling import check_lr_scaling, lr_factor


@dataclass(frozen=True)
class LRSchedule:
    """The factor of the learning rate as a function of progress and batch size.

    Parameters
    ----------
    scaling : {None, "sqrt", "linear", "sde"}, default=None
        Rule of `lr_factor`.
    warmup_epochs : float, default=0.0
        Number of epochs in which the factor goes from 1 to that of the rule.
    milestones : tuple of float, default=()
        Epochs after each of which the learning rate is multiplied by ``decay``.
    decay : float, default=0.1
        Factor at each milestone, in (0, 1].

    Examples
    --------
    >>> from sklgap.regimes import LRSchedule
    >>> schedule = LRSchedule("linear", warmup_epochs=5, milestones=(30,))
    >>> [schedule.factor(epoch, batch_size=1024, base_batch_size=256) for epoch in (0, 5, 30)]
    [1.0, 4.0, 0.4]
    """

    scaling: LRScaling | None = None
    warmup_epochs: float = 0.0
    milestones: tuple[float, ...] = ()
    decay: float = 0.1

    @property
    def follows_progress(self) -> bool:
        """Whether the factor depends on more than the batch size."""
        return bool(self.warmup_epochs or self.milestones)

    def factor(self, epochs_done: float, batch_size: int, base_batch_size: int) -> float:
        """Return the factor for the update after ``epochs_done`` epochs, which may be a fraction."""
        factor = lr_factor(self.scaling, batch_size, base_batch_size)
        if epochs_done < self.warmup_epochs:
            factor = 1 + (factor - 1) * epochs_done / self.warmup_epochs
        return factor * self.decay ** bisect_right(self.milestones, epochs_done)


def check_lr_schedule(
    lr_scaling: LRScaling | None, lr_warmup_epochs: float, lr_milestones: Sequence[float], lr_decay: float
) -> LRSchedule:
    """Return the schedule that the parameters of `LBGapClassifier` describe.

    Parameters
    ----------
    lr_scaling : {None, "sqrt", "linear", "sde"}
        Rule of `lr_factor`.
    lr_warmup_epochs : float
        Number of epochs of the warm-up, at least 0. It must be 0 without ``lr_scaling``.
    lr_milestones : sequence of float
        Increasing epochs above 0, after each of which the learning rate is multiplied by ``lr_decay``.
    lr_decay : float
        Factor at each milestone, in (0, 1].

    Returns
    -------
    LRSchedule
        The schedule.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values.
    """
    check_lr_scaling(lr_scaling)
    if not is_number(lr_warmup_epochs) or lr_warmup_epochs < 0:
        raise ValueError(f"lr_warmup_epochs must be a number of at least 0; got {shown(lr_warmup_epochs)}.")
    if lr_warmup_epochs and lr_scaling is None:
        raise ValueError(
            "lr_warmup_epochs must be 0 with lr_scaling=None, because the warm-up goes from lr to the scaled rate; "
            f"got {lr_warmup_epochs!r}."
        )
    numbers_only = isinstance(lr_milestones, list | tuple | range) or getattr(lr_milestones, "ndim", 0) == 1
    milestones: tuple[Any, ...] = tuple(lr_milestones) if numbers_only else (None,)
    if not all(is_number(m) and m > 0 for m in milestones) or list(milestones) != sorted(set(milestones)):
        raise ValueError(f"lr_milestones must be increasing numbers of epochs above 0; got {shown(lr_milestones)}.")
    if not is_number(lr_decay) or not 0 < lr_decay <= 1:
        raise ValueError(f"lr_decay must be a number in (0, 1]; got {shown(lr_decay)}.")
    return LRSchedule(lr_scaling, float(lr_warmup_epochs), tuple(map(float, milestones)), float(lr_decay))
