"""The train-test gap as a score: not the regime gap between small and large batch, which compares two models."""

from sklearn.metrics import accuracy_score

from sklgap._checks import naming_data
from sklgap._typing import ArrayLike, Classifier, Inputs
from sklgap.objective import check_objective
from sklgap.objective._estimators import final_estimator
from sklgap.objective._stream import is_stream


def generalization_gap_score(estimator: Classifier, X: Inputs, y: ArrayLike | None = None) -> float:
    """Training accuracy minus accuracy on X, y: the train-test gap of one model.

    Parameters
    ----------
    estimator : estimator
        A fitted `LBGapClassifier`, a pipeline or a search that ends in one: it knows its ``train_score_``.
    X, y : array-like
        Data the estimator was not fitted on. Or X is a Dataset or a DataLoader, and y is None.

    Returns
    -------
    float
        In [-1, 1]; larger is worse. All samples count alike in both accuracies, whatever weights they had in ``fit``.

    Raises
    ------
    TypeError
        For an estimator without ``train_score_``.

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
            "generalization_gap_score needs a fitted estimator with a train_score_, such as LBGapClassifier; "
            f"{type(last).__name__} has none."
        )
    if is_stream(X):  # accuracy with the statistics that predict uses
        return float(last.train_score_ - check_objective(estimator, X, batch_norm="running").evaluate().accuracy)
    with naming_data("X", "y"):
        return float(last.train_score_ - accuracy_score(y, estimator.predict(X)))


def neg_generalization_gap_scorer(estimator: Classifier, X: Inputs, y: ArrayLike | None) -> float:
    """Accuracy on X, y minus training accuracy: larger is better, for searches."""
    return -generalization_gap_score(estimator, X, y)
