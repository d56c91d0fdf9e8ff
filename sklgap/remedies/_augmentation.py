"""Data augmentation: Keskar et al. (2017), Section 4 and Appendix, and the usual recipes for CIFAR."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from sklgap._checks import check_fraction, check_integer, check_shape, is_number
from sklgap._typing import Batch
from sklgap.remedies._base import Remedy

# The sources of the recipes: Keskar et al. (2017); He et al. (2016), and the released code of Hoffer et al. (2017), on
# CIFAR; DeVries and Taylor (2017) on CIFAR-10.
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "crop-flip": {"degrees": 0.0, "translate": 0.0, "crop_padding": 4},
    "crop-flip-cutout": {"degrees": 0.0, "translate": 0.0, "crop_padding": 4, "cutout": 16},
}


class Augmentation(Remedy):
    """Change every image of a batch at random: flip, rotation, translation, crop, cutout.

    Every batch draws new changes. The defaults are those of Keskar et al.: horizontal flips, rotations up to 10
    degrees, and translations up to 0.2 of the side. A setting of 0 or False switches a change off.

    Parameters
    ----------
    flip : bool, default=True
        Whether to mirror each image left to right with probability 1/2.
    degrees : float, default=10
        Largest rotation to either side, in [0, 180], drawn uniformly.
    translate : float, default=0.2
        Largest shift in each direction as a fraction of the side, in [0, 1], drawn uniformly.
    crop_padding : int, default=0
        Number of pixels of a border around each image. A window of the size of the image is taken anywhere in the
        padded image, which is a shift by whole pixels. At least 0, and less than the smaller side (4 for CIFAR in He et
        al.).
    cutout : int, default=0
        Side of a square of pixels set to 0. Its centre may be any pixel, so part of the square may lie outside the
        image. At least 0, and less than the smaller side (16 for CIFAR-10 and 8 for CIFAR-100 in DeVries and Taylor).
    image_shape : tuple (channels, height, width), default=None
        Shape of an image, for an X whose samples have another shape. `LBGapClassifier` sets it.

    Notes
    -----
    The changes are applied in the order of the parameters, to all images of a batch at once, on the device of the data.
    Flip, rotation and translation are one bilinear resampling. A flip without the other two is exact, and so are crops.
    Pixels from outside the image and cut-out pixels are 0: black, or the mean if X is centred. The random numbers are
    drawn on the CPU, so they are the same on every device.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, Section 4.2.
    DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, arXiv:1708.04552.

    Examples
    --------
    >>> from sklgap import Augmentation, LBGapClassifier
    >>> model = LBGapClassifier(net="C1", augmentation="paper")
    >>> for_digits = LBGapClassifier(net="C1", augmentation=Augmentation(flip=False))
    >>> for_cifar = LBGapClassifier(net="ResNet44", augmentation="crop-flip")
    """

    def __init__(
        self,
        flip: bool = True,
        degrees: float = 10.0,
        translate: float = 0.2,
        crop_padding: int = 0,
        cutout: int = 0,
        image_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.flip = flip
        self.degrees = degrees
        self.translate = translate
        self.crop_padding = crop_padding
        self.cutout = cutout
        self.image_shape = image_shape

    def check(self) -> None:
        """Raise a ValueError if a parameter is outside its allowed values."""
        if not isinstance(self.flip, bool | np.bool_):
            raise ValueError(f"flip must be True or False; got {self.flip!r}.")
        if not is_number(self.degrees) or not 0 <= self.degrees <= 180:
            raise ValueError(f"degrees must be a number in [0, 180]; got {self.degrees!r}.")
        check_fraction("translate", self.translate)
        check_integer("crop_padding", self.crop_padding, least=0)
        check_integer("cutout", self.cutout, least=0)
        if self.image_shape is not None:
            check_shape("image_shape", self.image_shape, 3)

    def check_image_shape(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError for a shape (channels, height, width) of which a crop or a cutout could leave nothing."""
        side = min(shape[-2:])
        for name in ("crop_padding", "cutout"):
            value = getattr(self, name)
            if value >= side:
                raise ValueError(f"{name} must be less than the smaller side of the images, {side}; got {value}.")

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch with changed images."""
        if not (self.flip or self.degrees or self.translate or self.crop_padding or self.cutout):
            return batch
        X = batch.X
        images = X if self.image_shape is None else X.view(len(X), *self.image_shape)
        if images.ndim != 4:
            raise ValueError(
                "Augmentation needs a batch of shape (n, channels, height, width), or image_shape for samples of "
                f"another shape; got {tuple(X.shape)}."
            )
        n, _, height, width = images.shape
        u = 2 * torch.rand(4, n, generator=rng) - 1
        mirrored = (u[3] < 0) & bool(self.flip)
        if self.degrees or self.translate:
            images = self._resample(images, u, mirrored)
            mirrored = torch.zeros_like(mirrored)
        if self.crop_padding or mirrored.any():
            shift = torch.randint(2 * self.crop_padding + 1, (2, n), generator=rng)
            images = _crop(images, self.crop_padding, shift, mirrored)
        if self.cutout:
            centre = [torch.randint(side, (n,), generator=rng) for side in (height, width)]
            images = _cut_out(images, self.cutout, torch.stack(centre))
        return batch._replace(X=images.view(X.shape))

    def _resample(self, images: Tensor, u: Tensor, mirrored: Tensor) -> Tensor:
        """Mirror, rotate and shift by u of shape (4, n) in [-1, 1]: angle, two shifts, and one unused value."""
        aspect = images.shape[-2] / images.shape[-1]
        angle = u[0] * (math.pi / 180 * self.degrees)
        mirror = torch.where(mirrored, -1.0, 1.0)
        cos, sin = angle.cos(), angle.sin()
        # Rows of the affine map from the new image to the old one, in torch's normalised coordinates.
        rows = [mirror * cos, -sin * aspect, 2 * self.translate * u[1]]
        rows += [mirror * sin / aspect, cos, 2 * self.translate * u[2]]
        motion = torch.stack(rows, dim=1).view(-1, 2, 3)
        grid = affine_grid(motion.to(images), list(images.shape), align_corners=False)
        return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class _CallableAugmentation(Remedy):
    """A user's function on a batch of images."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        X = self.function(batch.X)
        if not isinstance(X, Tensor) or len(X) != len(batch.X):
            raise ValueError(
                f"augmentation must return a tensor of {len(batch.X)} samples, as many as its batch has; got "
                f"{tuple(X.shape) if isinstance(X, Tensor) else type(X).__name__}."
            )
        return batch._replace(X=X)


def check_augmentation(
    augmentation: str | Callable[[Tensor], Tensor] | Remedy | None,
    image_shape: Callable[[], tuple[int, ...]],
    row_shape: tuple[int, ...],
) -> Remedy | None:
    """Return the remedy that ``augmentation`` stands for.

    Parameters
    ----------
    augmentation : None, str, callable or Remedy
        None for no augmentation, the name of a recipe, a function that takes and returns a batch tensor, or a remedy.
    image_shape : callable
        Function that returns the shape (channels, height, width) of an image, or raises an error. It is called only for
        `Augmentation`.
    row_shape : tuple of int
        Shape of a sample in the batch: that of an image, or another shape with the same number of values.

    Returns
    -------
    Remedy or None
        The remedy; None without augmentation.

    Raises
    ------
    ValueError
        If ``augmentation`` is something else, or does not fit the images.
    """
    if augmentation is None:
        return None
    remedy = as_remedy(augmentation)
    if isinstance(remedy, Augmentation):
        remedy.check()
        shape = image_shape()
        remedy.check_image_shape(shape)
        if remedy.flip and shape[0] == 1:
            warnings.warn(
                "augmentation mirrors images of one channel, which changes the meaning of digits and letters. Pass "
                "Augmentation(flip=False) with the other settings that you want.",
                UserWarning,
                stacklevel=2,
            )
        if row_shape != shape:
            return clone(remedy).set_params(image_shape=shape)
    return remedy


def as_remedy(augmentation: Any) -> Remedy:
    """Return the remedy for the name of a recipe, a function of a batch tensor, or a remedy."""
    if isinstance(augmentation, str) and augmentation in RECIPES:
        return Augmentation(**RECIPES[augmentation])
    if isinstance(augmentation, Remedy):
        return augmentation
    if isinstance(augmentation, str) or not callable(augmentation) or isinstance(augmentation, type):
        names = ", ".join(map(repr, RECIPES))
        raise ValueError(f"augmentation must be None, {names}, a callable or a Remedy; got {augmentation!r}.")
    return _CallableAugmentation(augmentation)


def _crop(images: Tensor, padding: int, shift: Tensor, mirrored: Tensor) -> Tensor:
    """Pad with zeros, take a window at ``shift`` (2, n) in [0, 2 padding], and mirror if ``mirrored`` (n,) is True."""
    n, n_channels, height, width = images.shape
    shift, mirrored = shift.to(images.device), mirrored.to(images.device)
    padded = pad(images, (padding,) * 4)
    rows = shift[0, :, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = shift[1, :, None] + torch.where(mirrored[:, None], columns.flip(0), columns)
    pixels = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).view(n, 1, height * width)
    return padded.flatten(2).gather(2, pixels.expand(-1, n_channels, -1)).view(images.shape)


def _cut_out(images: Tensor, side: int, centre: Tensor) -> Tensor:
    """Set a square to zero that begins side // 2 pixels before ``centre`` (2, n), as far as it is in the image."""
    first = centre.to(images.device) - side // 2

    def covered(first: Tensor, n_pixels: int) -> Tensor:
        distance = torch.arange(n_pixels, device=images.device) - first[:, None]
        return (distance >= 0) & (distance < side)

    rows, columns = covered(first[0], images.shape[-2]), covered(first[1], images.shape[-1])
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)
