r"""Batch augmentation: several augmentations of each sample in one batch. Hoffer et al. (2019).

.. math:: \frac{1}{M} \sum_{m=1}^M f_B(x; T_m(X))

where :math:`T_1, \dots, T_M` are draws of the augmentation.
"""

from collections.abc import Callable

import torch
from sklearn.base import clone
from torch import Tensor, nn

from sklgap._checks import check_integer
from sklgap._typing import Batch
from sklgap.remedies._augmentation import as_remedy, check_augmentation
from sklgap.remedies._base import Remedy


class BatchAugmentation(Remedy):
    """Let every sample stand in the batch several times, each time with another augmentation.

    Parameters
    ----------
    augmentation : str, callable or Remedy, default="crop-flip"
        As ``augmentation`` of `LBGapClassifier`: the name of a recipe, a function of a batch tensor, or a remedy that
        changes the batch, such as `Augmentation`.
    n_copies : int, default=4
        M, augmentations of each sample in a batch, at least 1. 1: the augmentation alone.

    Notes
    -----
    The optimiser makes as many updates, each on ``n_copies`` times as many rows; a batch size of the regime counts
    samples, not copies. The loss is the mean over all copies. Sample weights, class weights, and what other remedies
    have drawn for a sample before, count for each copy. The copies stand one after the other, each with all samples, so
    that ghost batch norm and parts of a batch see different samples. ``train_accuracy`` is that of the first copies.
    Set ``augmentation=None`` of the estimator beside it. Cost: ``n_copies`` plain steps, and their memory.

    References
    ----------
    Hoffer et al., Augment your batch: better training with larger batches, arXiv:1901.09335; CVPR 2020.

    Examples
    --------
    >>> from sklgap import Augmentation, BatchAugmentation, LBGapClassifier
    >>> digits = Augmentation(flip=False, degrees=10, translate=0.1, image_shape=(1, 28, 28))
    >>> model = LBGapClassifier(batch_regime="LB", remedies=[BatchAugmentation(digits, n_copies=2)])
    """

    at_most_once = True

    def __init__(
        self, augmentation: str | Callable[[Tensor], Tensor] | Remedy = "crop-flip", n_copies: int = 4
    ) -> None:
        self.augmentation = augmentation
        self.n_copies = n_copies

    def check(self) -> None:
        """Raise a ValueError for a parameter outside its allowed values."""
        check_integer("n_copies", self.n_copies)
        as_remedy(self.augmentation).check()

    def check_criterion(self, criterion: nn.Module) -> None:
        """Ask the augmentation."""
        as_remedy(self.augmentation).check_criterion(criterion)

    def for_images(self, image_shape: Callable[[], tuple[int, ...]], row_shape: tuple[int, ...]) -> "BatchAugmentation":
        """Return a copy whose augmentation is ready for the images, as `check_augmentation` makes it."""
        self.check()
        ready = check_augmentation(as_remedy(self.augmentation), image_shape, row_shape)
        copied: BatchAugmentation = clone(self).set_params(augmentation=ready)
        return copied

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the copies of the batch, augmented."""
        if self.n_copies > 1:
            batch = batch.map(lambda tensor: torch.cat([tensor] * self.n_copies))
        return as_remedy(self.augmentation).transform_batch(batch, rng)
