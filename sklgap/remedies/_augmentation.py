"""Data augmentation: Keskar et al. (2017), Section 4 and Appendix (flips, rotations and translations)."""

import math
import numbers
import warnings
from collections.abc import Callable
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from sklgap._typing import Batch
from sklgap.remedies._base import Remedy


class Augmentation(Remedy):
    """Random horizontal flip, rotation and translation of every image, drawn anew for every batch.

    The defaults are the paper's: horizontal flips, rotations up to 10 degrees, translations up to 0.2 of the side.

    Parameters
    ----------
    flip : bool, default=True
        Mirror each image left to right with probability 1/2.
    degrees : float, default=10
        Largest rotation to either side, drawn uniformly.
    translate : float, default=0.2
        Largest shift in each direction as a fraction of the side, drawn uniformly.
    image_shape : tuple (channels, height, width), default=None
        Shape of an image where X has flat rows; `LBGapClassifier` fills it in.

    Notes
    -----
    One batched bilinear resampling on the device of the data; what moves in from outside the image is zero. The random
    numbers are drawn on the CPU, so that they are the same on every device.

    Examples
    --------
    >>> from sklgap import Augmentation, LBGapClassifier
    >>> model = LBGapClassifier(net="C1", augmentation="paper")
    >>> for_digits = LBGapClassifier(net="C1", augmentation=Augmentation(flip=False))
    """

    def __init__(
        self,
        flip: bool = True,
        degrees: float = 10.0,
        translate: float = 0.2,
        image_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.flip = flip
        self.degrees = degrees
        self.translate = translate
        self.image_shape = image_shape

    def check(self) -> None:
        """Raise a ValueError for a negative or unbounded angle, or a shift outside [0, 1]."""
        if not isinstance(self.degrees, numbers.Real) or not 0 <= self.degrees <= 180:
            raise ValueError(f"degrees must be a number in [0, 180]; got {self.degrees!r}.")
        if not isinstance(self.translate, numbers.Real) or not 0 <= self.translate <= 1:
            raise ValueError(f"translate must be a number in [0, 1]; got {self.translate!r}.")

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch with its images moved."""
        if not (self.flip or self.degrees or self.translate):
            return batch
        X = batch.X
        images = X if self.image_shape is None else X.view(len(X), *self.image_shape)
        motion = self._draw(len(X), images.shape[-2] / images.shape[-1], rng)
        grid = affine_grid(motion.to(images), list(images.shape), align_corners=False)
        moved = grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return batch._replace(X=moved.view(X.shape))

    def _draw(self, n: int, aspect: float, rng: torch.Generator) -> Tensor:
        """Return n affine maps of shape (n, 2, 3) in torch's normalised coordinates."""
        u = 2 * torch.rand(4, n, generator=rng) - 1
        angle = u[0] * (math.pi / 180 * self.degrees)
        mirror = torch.where(u[3] < 0, -1.0, 1.0) if self.flip else torch.ones(n)
        cos, sin = angle.cos(), angle.sin()
        rows = [mirror * cos, -sin * aspect, 2 * self.translate * u[1]]
        rows += [mirror * sin / aspect, cos, 2 * self.translate * u[2]]
        return torch.stack(rows, dim=1).view(n, 2, 3)


class _CallableAugmentation(Remedy):
    """A user's function on a batch of images."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        X = self.function(batch.X)
        if not isinstance(X, Tensor) or len(X) != len(batch.X):
            raise ValueError(
                f"augmentation must return a tensor of {len(batch.X)} rows like the batch it is given; "
                f"got {tuple(X.shape) if isinstance(X, Tensor) else type(X).__name__}."
            )
        return batch._replace(X=X)


def check_augmentation(
    augmentation: Any, image_shape: Callable[[], tuple[int, ...] | None], flat: bool
) -> Remedy | None:
    """Return the remedy that ``augmentation`` stands for.

    Parameters
    ----------
    augmentation : None, "paper", callable or Remedy
        None: no augmentation; a callable takes and returns a batch tensor.
    image_shape : callable
        Returns the shape (channels, height, width) of an image, or raises; called only for `Augmentation`.
    flat : bool
        Whether the rows of X are flat.
    """
    if augmentation is None:
        return None
    if isinstance(augmentation, str) and augmentation == "paper":
        augmentation = Augmentation()
    if not isinstance(augmentation, Remedy):
        if not callable(augmentation) or isinstance(augmentation, type):
            raise ValueError(f"augmentation must be None, 'paper', a callable or a Remedy; got {augmentation!r}.")
        return _CallableAugmentation(augmentation)
    if isinstance(augmentation, Augmentation):
        shape = image_shape()
        if augmentation.flip and shape is not None and shape[0] == 1:
            warnings.warn(
                "augmentation mirrors images of one channel: that changes the meaning of digits and letters; "
                "pass augmentation=Augmentation(flip=False) to keep only rotations and translations.",
                UserWarning,
                stacklevel=2,
            )
        if flat:
            augmentation = clone(augmentation).set_params(image_shape=shape)
    return augmentation
