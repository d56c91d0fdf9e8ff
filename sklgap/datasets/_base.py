"""The folders of data files, the file formats, and the code that all ``fetch_*`` functions share."""

import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import fetch_openml
from sklearn.utils import Bunch

from sklgap._typing import DataSubset
from sklgap.datasets._file import DataFile

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images (n, channels, height, width) and labels (n,) of one part of a data set, as stored."""


class ImageDataset(NamedTuple):
    """The properties of a published image data set.

    Attributes
    ----------
    title : str
        The name in error messages.
    folder : str
        The folder to which the publisher's archive unpacks.
    files : dict of str to tuple of str
        The file names of the subsets "train" and "test".
    read : callable
        Function that reads the files of one subset, or of both, into parts.
    shape : tuple of int
        The shape (channels, height, width) of an image.
    target_names : sequence of str
        The class names. Labels must be below their number.
    descr : str
        The text of ``Bunch.DESCR``.
    openml : str or None
        The name on OpenML (version 1); None if the data set is not loaded from OpenML.
    n_train, n_test : int
        The published numbers of samples. OpenML stores both subsets in one table, training samples first.
    """

    title: str
    folder: str
    files: dict[str, tuple[str, ...]]
    read: Callable[[Sequence[Path]], list[Part]]
    shape: tuple[int, int, int]
    target_names: Sequence[str]
    descr: str
    openml: str | None
    n_train: int
    n_test: int


XY = tuple[NDArray[np.float32], NDArray[np.int64]]


class ImageOptions(TypedDict, total=False):
    """The parameters of every ``fetch_*`` function for images, except ``return_X_y``."""

    subset: DataSubset
    data_home: str | os.PathLike[str] | None
    download_if_missing: bool
    flat: bool


def fetch_images(
    dataset: ImageDataset,
    *,
    subset: DataSubset,
    data_home: str | os.PathLike[str] | None,
    download_if_missing: bool,
    return_X_y: bool,
    flat: bool,
) -> Bunch | XY:
    """Load a data set from local files, or from OpenML without local files; every ``fetch_*`` function calls this."""
    check_choice("subset", subset, get_args(DataSubset))
    check_bool("download_if_missing", download_if_missing)
    check_bool("return_X_y", return_X_y)
    check_bool("flat", flat)
    home = check_data_home(data_home)

    paths = find_files(dataset, subset, home)
    if paths:
        parts = dataset.read(paths)
        X = scale_pixels([images for images, _ in parts], dataset.shape)
        y = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    elif not download_if_missing:
        raise FileNotFoundError(f"{_not_found(dataset, subset, home)}, and download_if_missing is False.")
    elif dataset.openml is None:
        raise FileNotFoundError(
            f"{_not_found(dataset, subset, home)}; put the files there; this data set is not loaded from OpenML."
        )
    else:
        X, y = _load_openml(dataset, subset, home)

    if flat:
        X = X.reshape(len(X), -1)
    if return_X_y:
        return X, y
    return Bunch(data=X, target=y, target_names=np.array(dataset.target_names), DESCR=dataset.descr)


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise a ValueError unless `value` is one of the `allowed` strings."""
    if not (isinstance(value, str) and value in allowed):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}.")


def check_bool(name: str, value: object) -> None:
    """Raise a TypeError unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}.")


def check_data_home(data_home: str | os.PathLike[str] | None) -> Path:
    """Return the data folder: the argument, ``$SKLGAP_DATA``, or scikit-learn's cache. Nothing is created."""
    if not isinstance(data_home, (str, os.PathLike, type(None))):
        raise TypeError(f"data_home must be a path or None, got {data_home!r}.")
    # This does not call sklearn.datasets.get_data_home, which creates the folder even if nothing will be stored there.
    home = (
        data_home
        or os.environ.get("SKLGAP_DATA")
        or os.environ.get("SCIKIT_LEARN_DATA")
        or Path("~", "scikit_learn_data")
    )
    path = Path(home).expanduser()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"data_home must be a folder, got the file '{path}'.")
    return path


def find_files(dataset: ImageDataset, subset: str, home: Path) -> list[Path]:
    """Return the local files of a subset in reading order; an empty list if there is no file of the data set."""
    found = {name: _find_file(home, dataset.folder, name) for names in dataset.files.values() for name in names}
    if not any(found.values()):
        return []
    paths = []
    for name in _file_names(dataset, subset):
        path = found[name]
        if path is None:
            # A download would mix two copies of the data, and a half-copied folder is the more likely cause.
            present = ", ".join(str(other) for other in found.values() if other)
            raise FileNotFoundError(
                f"{dataset.title} is incomplete: expected a file '{name}' or '{name}.gz' in "
                f"'{home / dataset.folder}' or '{home}', found only {present}."
            )
        paths.append(path)
    return paths


def _file_names(dataset: ImageDataset, subset: str) -> list[str]:
    subsets = ("train", "test") if subset == "all" else (subset,)
    return [name for key in subsets for name in dataset.files[key]]


def _find_file(home: Path, folder: str, name: str) -> Path | None:
    candidates = [parent / (name + suffix) for parent in (home / folder, home) for suffix in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def _not_found(dataset: ImageDataset, subset: str, home: Path) -> str:
    names = ", ".join(f"'{name}'" for name in _file_names(dataset, subset))
    return (
        f"{dataset.title} needs {names} (or .gz) in '{home / dataset.folder}' or '{home}', but no such file was found"
    )


def read_idx(path: Path, n_dims: int, most: int | None = None) -> NDArray[np.uint8]:
    """Read a file in the idx format, in which MNIST is published.

    Parameters
    ----------
    path : Path
        The file, uncompressed or with the suffix ``.gz``.
    n_dims : int
        The required number of dimensions.
    most : int or None, default=None
        The largest allowed number of elements of a compressed file.

    Returns
    -------
    ndarray of uint8
        A read-only array of the shape in the header.

    Raises
    ------
    ValueError
        If the magic number, the number of dimensions or the length is wrong.

    Notes
    -----
    The format is: two zero bytes, the element type (8 = unsigned byte), the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the elements in row-major order (LeCun, Cortes and Burges, "The MNIST database").
    """
    n_header = 4 + 4 * n_dims
    with DataFile(path, None if most is None else n_header + most) as file:
        header = file.read(n_header)
        magic = bytes([0, 0, 8, n_dims])
        if header[:4] != magic:
            raise ValueError(
                f"'{path}' must start with the idx magic number {magic.hex()} (unsigned bytes in {n_dims} dimensions), "
                f"found {header[:4].hex() or 'an empty file'}."
            )
        if len(header) < n_header:
            raise ValueError(f"'{path}' must hold an idx header of {n_header} bytes, found {len(header)} bytes in all.")
        shape = tuple(int(size) for size in np.frombuffer(header, dtype=">u4", count=n_dims, offset=4))
        expected = n_header + math.prod(shape)
        sentence = f"'{path}' must be {expected} bytes long (its header says {shape}), found "
        if not file.packed and file.most != expected:
            raise ValueError(f"{sentence}{file.most}.")
        if expected > file.most:
            raise ValueError(
                f"{sentence}a compressed file that may unpack to at most {file.most}; if the file is right, unpack it "
                "with gunzip first."
            )
        content = file.array(np.uint8, math.prod(shape))
        if content is None:
            raise ValueError(f"{sentence}{file.tell()}.")
        if file.read(1):
            raise ValueError(f"{sentence}more.")
    content.flags.writeable = False
    try:
        return content.reshape(shape)
    except ValueError as error:  # a size of 0 together with sizes that no array can have
        raise ValueError(
            f"'{path}' must have an idx header with the sizes of an array, but it says {shape}."
        ) from error


def read_records(path: Path, n_label_bytes: int, shape: tuple[int, int, int], most: int | None = None) -> Part:
    """Read a file in the "binary version", in which CIFAR is published.

    Parameters
    ----------
    path : Path
        The file, uncompressed or with the suffix ``.gz``.
    n_label_bytes : int
        The number of label bytes before the pixels of each record.
    shape : tuple of int
        The shape (channels, height, width) of an image.
    most : int or None, default=None
        The largest allowed number of records of a compressed file.

    Returns
    -------
    images : ndarray of uint8, shape (n, channels, height, width)
        A read-only view of the content of the file.
    labels : ndarray of uint8, shape (n, n_label_bytes)
        A read-only view, too.

    Raises
    ------
    ValueError
        If the file is empty, or its length is not a whole number of records.

    Notes
    -----
    There is no header. A record consists of the label bytes and the pixels, channel by channel, each in row-major order
    (Krizhevsky, "Learning multiple layers of features from tiny images", 2009, and the page of the data set).
    """
    n_record = n_label_bytes + math.prod(shape)
    with DataFile(path, None if most is None else most * n_record) as file:
        content = file.rest() if file.packed else file.array(np.uint8, file.most)
    if content is None or len(content) == 0 or len(content) % n_record:
        found = "a file that changes" if content is None else f"{len(content)} bytes"
        raise ValueError(f"'{path}' must hold one or more whole records of {n_record} bytes, found {found}.")
    content.flags.writeable = False
    records = content.reshape(-1, n_record)
    return records[:, n_label_bytes:].reshape(-1, *shape), records[:, :n_label_bytes]


def check_labels(source: Path | str, labels: NDArray[Any], n_classes: int) -> None:
    """Raise a ValueError that names the source if a label is negative or not below the number of classes."""
    wrong = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(wrong):
        raise ValueError(
            f"'{source}' must hold labels from 0 to {n_classes - 1}, found {labels[wrong[0]]} at index {wrong[0]}."
        )


def scale_pixels(parts: Sequence[NDArray[Any]], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Map pixels from 0 ... 255 to [0, 1], and join the parts to one new float32 array."""
    X = np.empty((sum(map(len, parts)), *shape), dtype=np.float32)
    start = 0
    for part in parts:
        # `out` and `dtype` prevent a float64 copy of the data.
        out = X[start : start + len(part)]
        np.divide(part.reshape(-1, *shape), 255, out=out, dtype=np.float32, casting="same_kind")
        start += len(part)
    return X


def _load_openml(dataset: ImageDataset, subset: str, home: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    # The pandas parser is several times faster, but pandas is not a dependency.
    parser = "pandas" if importlib.util.find_spec("pandas") else "liac-arff"
    try:
        bunch = fetch_openml(dataset.openml, version=1, data_home=home, as_frame=False, parser=parser)
    except OSError as error:
        raise OSError(f"{_not_found(dataset, subset, home)}, and the download from OpenML failed: {error}.") from error

    source = f"OpenML {dataset.openml}, version 1"
    expected = (dataset.n_train + dataset.n_test, math.prod(dataset.shape))
    if bunch.data.shape != expected or len(bunch.target) != expected[0]:
        raise ValueError(
            f"'{source}' must be a table of shape {expected} with a label for each sample, "
            f"found {bunch.data.shape} and {len(bunch.target)} labels."
        )
    rows = {"train": slice(dataset.n_train), "test": slice(dataset.n_train, None), "all": slice(None)}[subset]
    try:
        y = np.asarray(bunch.target[rows]).astype(np.int64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'{source}' must hold integer labels, but reading them failed: {error}.") from error
    check_labels(source, y, len(dataset.target_names))
    return scale_pixels([bunch.data[rows]], dataset.shape), y
