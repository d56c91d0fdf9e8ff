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
    """Put several copies of every sample in the batch, each with another augmentation.

    Parameters
    ----------
    augmentation : str, callable or Remedy, default="crop-flip"
        As ``augmentation`` of `LBGapClassifier`: the name of a recipe, a function of a batch tensor, or a remedy that
        changes the batch, such as `Augmentation`.
    n_copies : int, default=4
        Number M of copies of each sample in a batch, at least 1. With 1 only the augmentation applies. The default is
        our choice.

    Notes
    -----
    The number of updates does not change. The batch size of the regime counts samples, not copies. The loss is the mean
    over all copies. Each copy has the weights of its sample, and the random numbers that remedies before this one drew
    for it. The batch holds all samples once, then all samples again, so that ghost batch norm and parts of a batch
    receive different samples. ``train_accuracy`` is that of the first copies. Leave ``augmentation`` of the estimator
    at None, because it would change each sample a second time. Cost: ``n_copies`` plain steps, and their memory.

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
        """Raise a ValueError if a parameter is outside its allowed values."""
        check_integer("n_copies", self.n_copies)
        as_remedy(self.augmentation).check()

    def check_criterion(self, criterion: nn.Module) -> None:
        """Raise the error that the augmentation raises for this loss module."""
        as_remedy(self.augmentation).check_criterion(criterion)

    def for_images(self, image_shape: Callable[[], tuple[int, ...]], row_shape: tuple[int, ...]) -> "BatchAugmentation":
        """Return a copy with an augmentation that `check_augmentation` has fitted to the images."""
        self.check()
        ready = check_augmentation(as_remedy(self.augmentation), image_shape, row_shape)
        copied: BatchAugmentation = clone(self).set_params(augmentation=ready)
        return copied

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the augmented copies of the batch."""
        if self.n_copies > 1:
            batch = batch.map(lambda tensor: torch.cat([tensor] * self.n_copies))
        return as_remedy(self.augmentation).transform_batch(batch, rng)
