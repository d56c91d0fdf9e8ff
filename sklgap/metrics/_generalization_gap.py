"""The train-test gap of one model as a score. The regime gap, in contrast, compares a small and a large batch."""

from sklearn.metrics import accuracy_score

from sklgap._checks import naming_data
from sklgap._typing import ArrayLike, Classifier, Inputs
from sklgap.objective import check_objective
from sklgap.objective._estimators import final_estimator
from sklgap.objective._stream import is_stream


def generalization_gap_score(estimator: Classifier, X: Inputs, y: ArrayLike | None = None) -> float:
    """Return the train-test gap of a model: its training accuracy minus its accuracy on X, y.

    Parameters
    ----------
    estimator : estimator
        A fitted `LBGapClassifier`, or a pipeline or a search that ends in one. It has the attribute ``train_score_``.
    X, y : array-like
        Data that the estimator was not fitted on. X may also be a Dataset or a DataLoader, with y None.

    Returns
    -------
    float
        The gap, in [-1, 1]; larger is worse. All samples count equally in both accuracies, whatever weights they had in
        ``fit``.

    Raises
    ------
    TypeError
        If the estimator has no ``train_score_``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, generalization_gap_score
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=3, tol=None, random_state=0).fit(X[:900], y[:900])
    >>> bool(-1 <= generalization_gap_score(model, X[900:], y[900:]) <= 1)
    True
    """
    last = final_estimator(estimator)
    if not hasattr(last, "train_score_"):
        raise TypeError(
            "estimator must be fitted and have a train_score_, such as LBGapClassifier; "
            f"{type(last).__name__} does not have it."
        )
    if is_stream(X):  # accuracy with the statistics that predict uses
        return float(last.train_score_ - check_objective(estimator, X, batch_norm="running").evaluate().accuracy)
    with naming_data("X", "y"):
        return float(last.train_score_ - accuracy_score(y, estimator.predict(X)))


def neg_generalization_gap_scorer(estimator: Classifier, X: Inputs, y: ArrayLike | None) -> float:
    """Return the negative train-test gap, for searches: accuracy on X, y minus training accuracy.

    Parameters
    ----------
    estimator : estimator
        As in `generalization_gap_score`.
    X, y : array-like
        As in `generalization_gap_score`.

    Returns
    -------
    float
        The negative gap; larger is better.

    See Also
    --------
    generalization_gap_score : The gap itself.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier
    >>> from sklgap.metrics import neg_generalization_gap_scorer
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=3, tol=None, random_state=0).fit(X[:900], y[:900])
    >>> bool(-1 <= neg_generalization_gap_scorer(model, X[900:], y[900:]) <= 1)
    True
    """
    return -generalization_gap_score(estimator, X, y)
