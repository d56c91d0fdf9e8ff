"""CIFAR-10 and CIFAR-100: 60,000 tiny colour images each (Krizhevsky, 2009)."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Unpack, get_args, overload

from sklearn.utils import Bunch

from sklgap._typing import DataSubset, LabelKind
from sklgap.datasets._base import (
    XY,
    ImageDataset,
    ImageOptions,
    Part,
    check_choice,
    check_labels,
    fetch_images,
    read_records,
)

_SHAPE = (3, 32, 32)
_DESCR = """{title}: tiny colour images

50,000 training and 10,000 test images of 3 x 32 x 32 in {n_classes} classes; the channels are red, green and blue.
Pixels are float32 in [0, 1] (stored value / 255).

Krizhevsky, "Learning multiple layers of features from tiny images", technical report, University of Toronto, 2009.
"""

_CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_COARSE_NAMES = tuple(
    """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
    large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
    vehicles_1 vehicles_2
    """.split()  # noqa: SIM905 - a literal would take a line per name
)

_FINE_NAMES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man
    maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail
    snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
    tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()  # noqa: SIM905 - a literal would take a line per name
)


@overload
def fetch_cifar10(*, return_X_y: Literal[False] = False, **options: Unpack[ImageOptions]) -> Bunch: ...
@overload
def fetch_cifar10(*, return_X_y: Literal[True], **options: Unpack[ImageOptions]) -> XY: ...
@overload
def fetch_cifar10(*, return_X_y: bool = False, **options: Unpack[ImageOptions]) -> Bunch | XY: ...
def fetch_cifar10(
    *,
    subset: DataSubset = "train",
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    flat: bool = False,
) -> Bunch | XY:
    """Load CIFAR-10 (classification of tiny colour images).

    The data come from local files in the publisher's binary format, or from OpenML without local files.

    ==============   ==========================
    Classes                                  10
    Samples          50,000 train + 10,000 test
    Dimensionality                  3 x 32 x 32
    Features                    float in [0, 1]
    ==============   ==========================

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="train"
        The published training set, the test set, or both in this order.
    data_home : str or path-like, default=None
        The folder with the files ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, or with a
        sub-folder ``cifar-10-batches-bin`` that holds them. Each file may have the suffix ``.gz``. None means
        ``$SKLGAP_DATA``, or scikit-learn's data folder if that is not set.
    download_if_missing : bool, default=True
        Whether to ask OpenML (``CIFAR_10``) if there are no local files. If False, that is an OSError.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.
    flat : bool, default=False
        If True, X has one row of 3,072 features per image: red, then green, then blue.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : ndarray of float32, shape (n_samples, 3, 32, 32) or (n_samples, 3072)
            Pixels in [0, 1].
        target : ndarray of int64, shape (n_samples,)
            The classes, 0 to 9.
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
    The format is the "binary version" on the page of the data set: records of one label byte and 3,072 pixel bytes. The
    "python version" is not read, because it is a pickle. Files may hold fewer records than the published ones.
    Compressed files may not hold more.

    Examples
    --------
    A test set of one black image, in the publisher's format:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklgap.datasets import fetch_cifar10
    >>> with tempfile.TemporaryDirectory() as home:
    ...     _ = Path(home, "test_batch.bin").write_bytes(bytes([3]) + bytes(3072))
    ...     bunch = fetch_cifar10(subset="test", data_home=home)
    >>> bunch.data.shape, str(bunch.target_names[bunch.target[0]])
    ((1, 3, 32, 32), 'cat')
    """
    return fetch_images(
        _CIFAR10,
        subset=subset,
        data_home=data_home,
        download_if_missing=download_if_missing,
        return_X_y=return_X_y,
        flat=flat,
    )


@overload
def fetch_cifar100(
    *, label: LabelKind = "fine", return_X_y: Literal[False] = False, **options: Unpack[ImageOptions]
) -> Bunch: ...
@overload
def fetch_cifar100(*, label: LabelKind = "fine", return_X_y: Literal[True], **options: Unpack[ImageOptions]) -> XY: ...
@overload
def fetch_cifar100(
    *, label: LabelKind = "fine", return_X_y: bool = False, **options: Unpack[ImageOptions]
) -> Bunch | XY: ...
def fetch_cifar100(
    *,
    subset: DataSubset = "train",
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    flat: bool = False,
    label: LabelKind = "fine",
) -> Bunch | XY:
    """Load CIFAR-100 (classification of tiny colour images) from local files in the publisher's binary format.

    ==============   ==========================
    Classes                100 fine / 20 coarse
    Samples          50,000 train + 10,000 test
    Dimensionality                  3 x 32 x 32
    Features                    float in [0, 1]
    ==============   ==========================

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="train"
        The published training set, the test set, or both in this order.
    data_home : str or path-like, default=None
        The folder with the files ``train.bin`` and ``test.bin``, or with a sub-folder ``cifar-100-binary`` that holds
        them. Each file may have the suffix ``.gz``. None means ``$SKLGAP_DATA``, or scikit-learn's data folder if that
        is not set.
    download_if_missing : bool, default=True
        No effect: the files are never downloaded, and an OSError says which files to put where. The parameter gives all
        ``fetch_*`` functions the same signature.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.
    flat : bool, default=False
        If True, X has one row of 3,072 features per image: red, then green, then blue.
    label : {"fine", "coarse"}, default="fine"
        The 100 classes, or the 20 superclasses of five classes each.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : ndarray of float32, shape (n_samples, 3, 32, 32) or (n_samples, 3072)
            Pixels in [0, 1].
        target : ndarray of int64, shape (n_samples,)
            The classes, 0 to 99 (fine) or 0 to 19 (coarse).
        target_names : ndarray of str, shape (100,) or (20,)
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
        If a file is missing.

    Notes
    -----
    The format is the "binary version" on the page of the data set: records of a coarse label byte, a fine label byte
    and 3,072 pixel bytes. Files may hold fewer records than the published ones. Compressed files may not hold more.

    Examples
    --------
    A test set of one black image, in the publisher's format:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklgap.datasets import fetch_cifar100
    >>> with tempfile.TemporaryDirectory() as home:
    ...     _ = Path(home, "test.bin").write_bytes(bytes([4, 0]) + bytes(3072))
    ...     bunch = fetch_cifar100(subset="test", data_home=home, label="coarse")
    >>> str(bunch.target_names[bunch.target[0]])
    'fruit_and_vegetables'
    """
    check_choice("label", label, get_args(LabelKind))
    return fetch_images(
        _CIFAR100[label],
        subset=subset,
        data_home=data_home,
        download_if_missing=download_if_missing,
        return_X_y=return_X_y,
        flat=flat,
    )


def _read_cifar(paths: Sequence[Path], *, class_counts: Sequence[int], column: int, most: int) -> list[Part]:
    parts = []
    for path in paths:
        images, labels = read_records(path, len(class_counts), _SHAPE, most)
        for values, n_classes in zip(labels.T, class_counts, strict=True):
            # The other label is checked, too, because a wrong one reveals a file of another format.
            check_labels(path, values, n_classes)
        parts.append((images, labels[:, column]))
    return parts


_CIFAR10 = ImageDataset(
    title="CIFAR-10",
    folder="cifar-10-batches-bin",
    files={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
    read=partial(_read_cifar, class_counts=(10,), column=0, most=10_000),
    shape=_SHAPE,
    target_names=_CIFAR10_NAMES,
    descr=_DESCR.format(title="CIFAR-10", n_classes=10),
    openml="CIFAR_10",
    n_train=50_000,
    n_test=10_000,
)

_CIFAR100 = {
    label: ImageDataset(
        title="CIFAR-100",
        folder="cifar-100-binary",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        read=partial(_read_cifar, class_counts=(20, 100), column=column, most=50_000),
        shape=_SHAPE,
        target_names=names,
        descr=_DESCR.format(title="CIFAR-100", n_classes=f"{len(names)} ({label})"),
        openml=None,
        n_train=50_000,
        n_test=10_000,
    )
    for column, (label, names) in enumerate([("coarse", _COARSE_NAMES), ("fine", _FINE_NAMES)])
}
