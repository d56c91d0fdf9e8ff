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
        Labels, of any type that scikit-learn takes. They are not changed.
    fraction : float, default=1.0
        The probability with which each label, independently of the others, is replaced. 0: no label is; 1: every
        label is, and says nothing about its row any more.
    random_state : int, RandomState or None, default=None
        Draws which labels are replaced, and by what. None draws from fresh entropy. With one int, the labels that a
        smaller fraction replaces are replaced, by the same ones, under a larger fraction too.

    Returns
    -------
    ndarray of shape (n_samples,)
        The labels, of the type of y.

    Raises
    ------
    ValueError
        For a fraction outside [0, 1], or labels that are none.

    Notes
    -----
    As in the paper a label may come back as itself: with k classes a share of (1 - 1 / k) ``fraction`` of the labels
    changes on average, and with ``fraction=1`` a net that has learnt nothing is right on 1 / k of the rows. Classes
    become equally frequent, whatever they were.

    Replace the labels of training rows only: the accuracy on test rows with true labels then shows what is left of the
    signal.

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
        raise ValueError("y must have at least one label; got none.")
    with naming_data("y"):
        check_classification_targets(labels)
    rng = check_random_state(random_state)
    classes = np.unique(labels)
    # Both draws are of full length whatever the fraction, so that the labels replaced are nested.
    replaced = rng.uniform(size=len(labels)) < fraction
    return np.where(replaced, classes[rng.randint(len(classes), size=len(labels))], labels)
