"""Random labels: Zhang et al. (2017), "Understanding deep learning requires rethinking generalization"."""

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from sklgap._checks import check_arguments, check_fraction, check_random_state, naming_data
from sklgap._typing import ArrayLike


def randomize_labels(
    y: ArrayLike, fraction: float = 1.0, *, random_state: int | np.random.RandomState | None = None
) -> np.ndarray:
    """Replace labels by random ones, drawn uniformly from the classes present.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels of any type that scikit-learn accepts. The array is not changed.
    fraction : float, default=1.0
        Probability of replacing each label, independently of the others. With 0 no label is replaced. With 1 every
        label is replaced, and says nothing about its sample.
    random_state : int, RandomState or None, default=None
        Seed of the choice of labels and of the new labels. None draws from fresh entropy. With the same int, a larger
        fraction replaces all labels that a smaller fraction replaces, by the same new labels.

    Returns
    -------
    ndarray of shape (n_samples,)
        The labels, of the same type as y.

    Raises
    ------
    ValueError
        If the fraction is outside [0, 1], or if y does not hold class labels.

    Notes
    -----
    As in the paper, a new label may equal the old one. With k classes, a share of (1 - 1 / k) ``fraction`` of the
    labels changes on average. With ``fraction=1``, a net that has learnt nothing is right on 1 / k of the samples. The
    replaced labels are equally frequent in all classes, whatever the frequencies were before.

    Replace the labels of the training samples only. The accuracy on test samples with true labels then shows how much
    of the signal is left.

    References
    ----------
    Zhang, Bengio, Hardt, Recht and Vinyals, ICLR 2017, arXiv:1611.03530, Section 2: "random labels" (fraction 1) and
    "partially corrupted labels".

    Examples
    --------
    >>> import numpy as np
    >>> from sklgap.datasets import randomize_labels
    >>> y = np.repeat([0, 1, 2, 3], 1000)
    >>> y_random = randomize_labels(y, random_state=0)
    >>> bool(abs((y_random == y).mean() - 1 / 4) < 0.03)
    True
    >>> bool((randomize_labels(y, 0.0) == y).all())
    True
    """
    check_arguments(randomize_labels, locals())
    check_fraction("fraction", fraction)
    with naming_data("y"):
        labels: np.ndarray = column_or_1d(y)
    if not len(labels):
        raise ValueError("y must have at least one label; got an empty y.")
    with naming_data("y"):
        check_classification_targets(labels)
    rng = check_random_state(random_state)
    classes = np.unique(labels)
    # Both draws have full length for any fraction, so that a larger fraction replaces all labels of a smaller one.
    replaced = rng.uniform(size=len(labels)) < fraction
    return np.where(replaced, classes[rng.randint(len(classes), size=len(labels))], labels)
