"""The validation samples. A user's own samples pass through the same encoding as the samples of ``fit``."""

from typing import Any

import numpy as np
from skorch.dataset import Dataset
from torch.utils.data import Subset

from sklgap.training._datasets import WeightedDataset
from sklgap.training._encoding import to_numpy


def split_as_given(net: Any, X: Any, y: np.ndarray, **kwargs: Any) -> tuple[Any, Any]:
    """Call ``train_split`` with the samples and labels that ``fit`` received, and return both parts for the net.

    Parameters
    ----------
    net : TrainingNet
        The net, with its ``encoding_``.
    X : ndarray, sparse matrix or WeightedDataset
        Encoded samples; with weights, a dataset of samples, class numbers and weights.
    y : ndarray
        Class numbers.
    **kwargs
        Arguments for ``train_split``.

    Raises
    ------
    ValueError, TypeError
        If ``score`` would not accept a part, either.
    """
    encoding = net.encoding_
    labels = encoding.classes[y]
    rows = X.X if isinstance(X, WeightedDataset) else X
    whole, shown = net.get_dataset(X, y), net.get_dataset(encoding.given_rows(rows), labels)

    def encoded(part: Any) -> Any:
        if part is None or part is shown:
            return None if part is None else whole
        if type(part) is Subset and _root(part) is shown:
            return Subset(encoded(part.dataset), part.indices)
        try:
            return net.get_dataset(*encoding.encode(*_rows_and_labels(part)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"train_split must return samples and labels like those of fit: {error}") from error

    train, valid = net.train_split(shown, labels, **kwargs)
    if isinstance(whole, WeightedDataset) and _root(train) is not shown:
        raise ValueError(
            "train_split must return its dataset, or a torch Subset of it, as training samples with sample_weight; "
            f"got another {type(train).__name__}, whose weights are not known."
        )
    return encoded(train), encoded(valid)


def _root(part: Any) -> Any:
    while type(part) is Subset:
        part = part.dataset
    return part


def _rows_and_labels(dataset: Any) -> tuple[Any, Any]:
    """Return all samples and labels of a dataset."""
    if type(dataset) is Dataset:
        if dataset.y is None:
            raise ValueError("the dataset holds no labels")
        return dataset.X, dataset.y
    if not hasattr(dataset, "__len__"):
        raise TypeError(f"a {type(dataset).__name__} has no length")
    items = [dataset[i] for i in range(len(dataset))]
    if not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
        raise TypeError(f"a {type(dataset).__name__} must hold pairs (sample, label)")
    labels = [label.item() if hasattr(label, "item") else label for _, label in items]
    return np.stack([np.asarray(to_numpy(row)) for row, _ in items]), np.asarray(labels)
