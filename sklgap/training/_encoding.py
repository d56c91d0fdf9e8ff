"""The conversion of a user's samples and labels for the net: samples in its input shape, labels as class numbers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils.validation import check_array, column_or_1d
from torch import Tensor

from sklgap._checks import naming_data
from sklgap.memory import Fingerprint

# Sparse data are converted to dense arrays by batch or by block of samples, never as a whole.
NOT_SPARSE = (
    "X must be dense {}; got a sparse matrix; use sparse_output=False in the step that made it, or X.toarray()."
)


# Integer labels are looked up in a table that is as long as their range, if that is at most this length.
_LONGEST_TABLE = 1_000_000


def class_numbers(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels in ascending order, and the position of each sample's label among them.

    The result is that of ``np.unique(y, return_inverse=True)``. For integers it takes a tenth of the time, because
    there is no sorting.
    """
    if y.dtype.kind in "iu" and y.dtype != np.uint64 and y.size:
        least, most = int(y.min()), int(y.max())
        if most - least < min(_LONGEST_TABLE, y.size):
            places = y.astype(np.int64)
            places -= least
            found = np.bincount(places) > 0
            numbers = np.cumsum(found) - 1
            # This runs in place, because an array of a million labels takes 8 MB. The mode "raise" would copy, and no
            # place is out of bounds, so the mode is "clip".
            return (np.flatnonzero(found) + least).astype(y.dtype), numbers.take(places, out=places, mode="clip")
    classes, numbers = np.unique(y, return_inverse=True)
    return classes, numbers


def with_classes(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return y with its distinct values as metadata, which the checks of scikit-learn read instead of sorting y."""
    return y.view(np.dtype(y.dtype, metadata={"unique": classes})) if y.dtype.kind in "iufb" else y


class CheckedRows(NamedTuple):
    """X after the checks and the conversion of `LBGapClassifier.fit`, for experiments that fit the same X many times.

    ``values`` are finite float32 numbers in C order. ``names`` are the names of the columns. ``fingerprint`` is that of
    the values, for saved work. Labels that come with it have been checked as well.
    """

    values: np.ndarray
    names: np.ndarray | None = None
    fingerprint: Fingerprint | None = None


class DataEncoding:
    """The samples and labels of a fit, in the form that the estimator receives and in the form that its net receives.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The sorted labels.
    row_shape, net_shape : tuple of int
        Shape of a sample in ``fit`` and in the net: (784,) and (1, 28, 28) for flat images before a convolutional net.
    feature_names : sequence of str, default=None
        Names of the columns, if X had names.
    """

    def __init__(
        self,
        classes: np.ndarray,
        row_shape: tuple[int, ...],
        net_shape: tuple[int, ...],
        feature_names: Sequence[str] | None = None,
    ) -> None:
        self.classes = classes
        self.row_shape = row_shape
        self.net_shape = net_shape
        self.feature_names = None if feature_names is None else list(feature_names)

    def rows(self, X: Any) -> Any:
        """Return X in the input shape of the net; raise a ValueError if samples have another shape than in fit."""
        if X.shape[1:] != self.row_shape:
            raise ValueError(f"X must have samples of shape {self.row_shape}, as in fit; got {X.shape[1:]}.")
        if not issparse(X):
            return X.reshape(len(X), *self.net_shape)
        if self.net_shape != self.row_shape:
            raise TypeError(NOT_SPARSE.format("for a net that works on images"))
        return X

    def given_rows(self, X: Any) -> Any:
        """Return samples in the shape that ``fit`` received."""
        return X if issparse(X) else X.reshape(len(X), *self.row_shape)

    def encode(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 samples for the net, and class numbers; raise a ValueError where ``score`` would, too."""
        names = getattr(X, "columns", None)
        if self.feature_names is not None and names is not None and list(names) != self.feature_names:
            raise ValueError(f"X must have the columns {self.feature_names} of fit, in their order; got {list(names)}.")
        with naming_data("X"):
            X = check_array(
                to_numpy(X), accept_sparse="csr", dtype=np.float32, order="C", allow_nd=True, input_name="X"
            )
        return self.encode_checked(X, y)

    def encode_checked(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the result of `encode` for samples that are known to be finite and in float32."""
        with naming_data("X"):
            rows = self.rows(X)
        with naming_data("y"):
            y = column_or_1d(to_numpy(y))
        if rows.shape[0] != len(y):
            raise ValueError(f"X and y must have the same number of samples; got {rows.shape[0]} and {len(y)}.")
        with naming_data("y"):
            unseen = np.setdiff1d(y, self.classes)
        if len(unseen):
            raise ValueError(f"y must have the labels seen in fit, {self.classes}; got {unseen} as well.")
        return rows, np.searchsorted(self.classes, y)

    def encode_batch(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        """Return a batch of a loader for the net: samples in its input shape, labels as class numbers."""
        if isinstance(X, Tensor):
            X = X.reshape(len(X), *self.net_shape)
        y = column_or_1d(to_numpy(y))
        unseen = np.setdiff1d(y, self.classes)
        if len(unseen):
            raise ValueError(f"y must have the labels seen in fit, {self.classes}; got {unseen} as well.")
        return X, np.searchsorted(self.classes, y)


def to_numpy(data: Any) -> Any:
    """Return a tensor as an array, and anything else unchanged."""
    if not isinstance(data, Tensor):
        return data
    if data.layout != torch.strided:
        raise TypeError(
            f"X and y must not be sparse tensors; got {data.layout}; pass data.to_dense(), or a SciPy CSR matrix as X "
            "(steps of scikit-learn return dense arrays with sparse_output=False)."
        )
    return data.detach().cpu().numpy()
