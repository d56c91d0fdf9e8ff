"""How a user's rows and labels reach the net: rows in the shape the net takes, labels as class numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, column_or_1d
from torch import Tensor

from sklgap._checks import naming_data


class DataEncoding:
    """The rows and labels of a fit, as the estimator is given them, and as its net is.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The labels, sorted.
    row_shape, net_shape : tuple of int
        Shape of a row in ``fit``, and as the net takes it: (784,) and (1, 28, 28) for flat images before a
        convolutional net.
    feature_names : sequence of str, default=None
        Names of the columns, where X had them.
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

    def rows(self, X: np.ndarray) -> np.ndarray:
        """Return X in the shape the net takes; ValueError for rows of another shape than in fit."""
        if X.shape[1:] != self.row_shape:
            raise ValueError(f"X must have rows of shape {self.row_shape} as in fit; got {X.shape[1:]}.")
        return X.reshape(len(X), *self.net_shape)

    def encode(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 rows for the net, and class numbers; ValueError for what ``score`` would not take either."""
        names = getattr(X, "columns", None)
        if self.feature_names is not None and names is not None and list(names) != self.feature_names:
            raise ValueError(f"X must have the columns {self.feature_names} of fit, in their order; got {list(names)}.")
        with naming_data("X"):
            rows = self.rows(check_array(to_numpy(X), dtype=np.float32, order="C", allow_nd=True, input_name="X"))
        with naming_data("y"):
            y = column_or_1d(to_numpy(y))
        if len(rows) != len(y):
            raise ValueError(f"X and y must have the same number of rows; got {len(rows)} and {len(y)}.")
        with naming_data("y"):
            unseen = np.setdiff1d(y, self.classes)
        if len(unseen):
            raise ValueError(f"y must have the labels seen in fit, {self.classes}; got {unseen} beside them.")
        return rows, np.searchsorted(self.classes, y)


def to_numpy(data: Any) -> Any:
    """Return a tensor as an array, anything else as it is."""
    return data.detach().cpu().numpy() if isinstance(data, Tensor) else data
