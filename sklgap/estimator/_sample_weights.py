"""The weights of samples and classes: ``sample_weight``, ``class_weight`` and ``criterion__weight``."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sklgap.objective._row_loss import NO_TERMS, RowLoss
from sklgap.training._encoding import to_numpy

# Criteria of torch whose ``weight`` has one number for every class.
BY_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)


def check_sample_weight(sample_weight: Any, X: Any) -> np.ndarray | None:
    """Return the weights as float64, scaled so that the largest lies from 1 to 2; raise a ValueError for other values.

    Only the ratios of weights matter. The scaling divides by a power of two, which is exact, so that sums of very small
    or very large weights fit into single precision.
    """
    if sample_weight is None:
        return None
    try:
        weight = np.array(_check_sample_weight(to_numpy(sample_weight), X, dtype=np.float64))
    except (TypeError, ValueError) as error:
        if re.search("sample.weight", str(error), re.IGNORECASE):
            raise
        raise ValueError(f"sample_weight must hold one number for each sample: {error}") from error
    largest = weight.max()
    if not math.isfinite(largest):
        raise ValueError(f"sample_weight must hold finite numbers; got {largest}.")
    if weight.min() < 0:
        raise ValueError(f"sample_weight must hold numbers of at least 0; got {weight.min()}.")
    if not largest:
        raise ValueError("sample_weight must hold a number above 0; all of them are 0.")
    return np.ldexp(weight, 1 - int(np.frexp(largest)[1]))


def class_weights(
    class_weight: Any, classes: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None
) -> np.ndarray | None:
    """Return the weight of every class, as scikit-learn defines it; None for None.

    A label that a dict leaves out has weight 1. ``"balanced"`` counts the samples by ``sample_weight``, so that a
    weight of 2 counts like a sample given twice.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, str) and class_weight == "balanced":
        counts = np.bincount(np.searchsorted(classes, y), weights=sample_weight, minlength=len(classes))
        # If all samples of a class have weight 0, the weight of the class does not matter.
        return np.divide(counts.sum(), len(classes) * counts, out=np.zeros(len(classes)), where=counts > 0)
    if not isinstance(class_weight, Mapping):
        raise ValueError(f"class_weight must be None, 'balanced' or a dict from label to weight; got {class_weight!r}.")
    labels = classes.tolist()
    missing = [label for label in labels if label not in class_weight]
    unknown = [label for label in class_weight if label not in labels]
    if unknown and missing:  # scikit-learn's sentence
        raise ValueError(f"The classes, {missing}, are not in class_weight; it has {unknown} instead.")
    if unknown:
        raise ValueError(f"class_weight must have labels of y, {labels}, as its keys; it also has {unknown}.")
    weights = [class_weight.get(label, 1.0) for label in labels]
    if not (all(_is_weight(value) for value in weights) and any(weights)):
        raise ValueError(f"class_weight must hold finite numbers of at least 0, not all 0; got {dict(class_weight)!r}.")
    return np.array(weights, dtype=np.float64)


def criterion_weight(weight: Any, criterion: Any, n_classes: int) -> Any:
    """Return the class weights of a torch criterion, given as any kind of array, as a new tensor.

    For other criteria, ``weight`` is returned unchanged, because its meaning is not known. A ValueError is raised for
    values that cannot be weights.
    """
    if weight is None or not (isinstance(criterion, type) and issubclass(criterion, BY_CLASS)):
        return weight
    try:
        tensor = torch.tensor(np.asarray(to_numpy(weight), dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"criterion__weight must hold numbers; got {weight!r}.") from error
    if tensor.shape != (n_classes,):
        raise ValueError(
            f"criterion__weight must hold one number for each of the {n_classes} classes; got {tuple(tensor.shape)}."
        )
    if not (tensor.isfinite().all() and (tensor >= 0).all() and tensor.any()):
        raise ValueError(f"criterion__weight must hold finite numbers of at least 0, not all 0; got {tensor.tolist()}.")
    return tensor


def check_data_path(nested: Mapping[str, Any]) -> None:
    """Raise a ValueError if a part of skorch's data path that the user replaced would lose the weights."""
    for name, value in nested.items():
        part, _, argument = name.partition("__")
        own_loader = part in ("iterator_train", "iterator_valid") and (
            argument == "collate_fn" or (not argument and value is not DataLoader)
        )
        if own_loader or part == "dataset":
            raise ValueError(
                f"sample_weight must be None with your own {name}, which passes on pairs (X, y) and would lose the "
                "weights. class_weight and criterion__weight can be used with it."
            )


def check_terms(loss: RowLoss, n_classes: int, like: Tensor) -> None:
    """Raise a TypeError unless the criterion is the mean of the losses of the samples.

    Parameters
    ----------
    loss : RowLoss
        Loss of the criterion alone, without ``class_weight``.
    n_classes : int
        Number of classes.
    like : Tensor
        Tensor with the type and device of the outputs.
    """
    y = torch.arange(3 * n_classes, device=like.device) % n_classes
    # Numbers that are valid as logits and as probabilities.
    y_pred = torch.arange(3 * n_classes**2).sin().view(-1, n_classes).softmax(dim=1).to(like)
    name = "sample_weight and class_weight need a criterion"
    if loss.terms is None:
        raise TypeError(NO_TERMS.replace("Sample weights", "sample_weight and class_weight"))
    try:
        mean, _ = loss.weighted(y_pred, y, torch.ones_like(y_pred[:, 0]))
    except (RuntimeError, ValueError, TypeError) as error:
        raise TypeError(f"{name} that returns the loss of each sample with reduction='none': {error}") from error
    if not torch.allclose(mean, loss.mean(y_pred, y), rtol=1e-4, atol=1e-6, equal_nan=True):
        raise TypeError(f"{name} that returns the mean of what it returns for each sample with reduction='none'.")


def _is_weight(value: Any) -> bool:
    try:
        return math.isfinite(value) and value >= 0
    except TypeError:
        return False
