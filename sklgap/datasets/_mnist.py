"""MNIST: 70,000 handwritten digits (LeCun, Bottou, Bengio and Haffner, 1998)."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Unpack, overload

from sklearn.utils import Bunch

from sklgap._typing import DataSubset
from sklgap.datasets._base import XY, ImageDataset, ImageOptions, Part, check_labels, fetch_images, read_idx

_SHAPE = (1, 28, 28)
_TARGET_NAMES = tuple(str(digit) for digit in range(10))
_DESCR = """MNIST: images of handwritten digits

60,000 training and 10,000 test images of 28 x 28 grey levels in 10 classes. Pixels are float32 in [0, 1] (stored
value / 255), 0 is the background.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proceedings of the IEEE
86(11), 1998.
"""


@overload
def fetch_mnist(*, return_X_y: Literal[False] = False, **options: Unpack[ImageOptions]) -> Bunch: ...
@overload
def fetch_mnist(*, return_X_y: Literal[True], **options: Unpack[ImageOptions]) -> XY: ...
@overload
def fetch_mnist(*, return_X_y: bool = False, **options: Unpack[ImageOptions]) -> Bunch | XY: ...
def fetch_mnist(
    *,
    subset: DataSubset = "train",
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    flat: bool = False,
) -> Bunch | XY:
    """Load MNIST (classification of handwritten digits).

    The data come from local files in the publisher's idx format, or from OpenML without local files.

    ==============   ==========================
    Classes                                  10
    Samples          60,000 train + 10,000 test
    Dimensionality                  1 x 28 x 28
    Features                    float in [0, 1]
    ==============   ==========================

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="train"
        The published training set, the test set, or both in this order.
    data_home : str or path-like, default=None
        The folder with the files ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte``
        and ``t10k-labels-idx1-ubyte``, or with a sub-folder ``mnist`` that holds them. Each file may have the suffix
        ``.gz``. None means ``$SKLGAP_DATA``, or scikit-learn's data folder if that is not set.
    download_if_missing : bool, default=True
        Whether to ask OpenML (``mnist_784``) if there are no local files. If False, that is an OSError.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.
    flat : bool, default=False
        If True, X has one row of 784 features per image.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : ndarray of float32, shape (n_samples, 1, 28, 28) or (n_samples, 784)
            Pixels in [0, 1].
        target : ndarray of int64, shape (n_samples,)
            The digits, 0 to 9.
        target_names : ndarray of str, shape (10,)
            The class names.
        DESCR : str
            Description of the data set.

    (data, target) : tuple if ``return_X_y`` is True
        The two arrays above.

    Raises
    ------
    ValueError
        If a parameter is not allowed, or a file is truncated, damaged or of another format.
    OSError
        If files are missing and ``download_if_missing`` is False, if only some of the files are there, or if the
        download fails.

    Notes
    -----
    The format is that of LeCun, Cortes and Burges, "The MNIST database of handwritten digits". Files may hold fewer
    images than the published ones. Compressed files may not hold more than the training set.

    Examples
    --------
    A test set of one black image, in the publisher's format:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklgap.datasets import fetch_mnist
    >>> with tempfile.TemporaryDirectory() as home:
    ...     header = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28])
    ...     _ = Path(home, "t10k-images-idx3-ubyte").write_bytes(header + bytes(784))
    ...     _ = Path(home, "t10k-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
    ...     X, y = fetch_mnist(subset="test", data_home=home, return_X_y=True)
    >>> X.shape, y
    ((1, 1, 28, 28), array([7]))
    """
    return fetch_images(
        _MNIST,
        subset=subset,
        data_home=data_home,
        download_if_missing=download_if_missing,
        return_X_y=return_X_y,
        flat=flat,
    )


def _read_mnist(paths: Sequence[Path]) -> list[Part]:
    return [_read_pair(images, labels) for images, labels in zip(paths[::2], paths[1::2], strict=True)]


def _read_pair(image_path: Path, label_path: Path) -> Part:
    images = read_idx(image_path, n_dims=3, most=_MNIST.n_train * math.prod(_SHAPE))
    if len(images) == 0 or images.shape[1:] != _SHAPE[1:]:
        raise ValueError(f"'{image_path}' must hold one or more images of {_SHAPE[1:]} pixels, found {images.shape}.")
    labels = read_idx(label_path, n_dims=1, most=_MNIST.n_train)
    if len(labels) != len(images):
        raise ValueError(
            f"'{label_path}' must hold a label for each of the {len(images)} images of '{image_path}', "
            f"found {len(labels)}."
        )
    check_labels(label_path, labels, len(_TARGET_NAMES))
    return images.reshape(-1, *_SHAPE), labels


_MNIST = ImageDataset(
    title="MNIST",
    folder="mnist",
    files={
        "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    },
    read=_read_mnist,
    shape=_SHAPE,
    target_names=_TARGET_NAMES,
    descr=_DESCR,
    openml="mnist_784",
    n_train=60_000,
    n_test=10_000,
)
