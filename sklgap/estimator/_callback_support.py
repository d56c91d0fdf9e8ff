"""Support for scikit-learn's own callbacks (``set_callbacks``), which exist from version 1.9 on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklgap.estimator._evaluation import recompute_batch_norm
from sklgap.training._epoch_tasks import EpochTasks
from sklgap.training._recorder import snapshot

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
except ImportError:  # older versions have no set_callbacks

    class CallbackSupportMixin:  # type: ignore[no-redef] # one of the two exists
        """Replacement for scikit-learn's class."""


def fit_with_callbacks(model: Any, X: Any, y: Any, sample_weight: Any = None) -> None:
    """Fit the model and notify its callbacks. A callback that fails after the training does not undo the fit."""
    from sklearn.callback import with_callbacks

    ended = False

    def fit(model: Any) -> None:
        nonlocal ended
        epochs = None if model.regime_adaptation else model.max_epochs  # as many as the number of updates takes
        task = model._init_callback_context(max_subtasks=epochs)
        about = described_fit(model, X, y, sample_weight)
        task.call_on_fit_task_begin(**about)
        model._fit(X, y, sample_weight, task)
        ended = True
        task.call_on_fit_task_end(**about, reconstruction_attributes={})

    try:
        with_callbacks(fit)(model)
    except BaseException as error:  # Ctrl-C too: the training is done
        if not ended:
            raise
        model.net_.ending_error_ = model.net_.ending_error_ or error


def described_fit(model: Any, X: Any, y: Any, sample_weight: Any = None) -> dict[str, Any]:
    """Return the keyword arguments that callbacks receive about a fit."""
    weights = {} if sample_weight is None else {"metadata": {"sample_weight": sample_weight}}
    return {"estimator": model, "X": X, "y": y, **weights}


@contextmanager
def epoch_tasks(model: Any, task: Any, about: dict[str, Any], rows: Any, encoded: Any) -> Iterator[None]:
    """Make every epoch of ``model.net_`` a subtask of ``task`` within this context.

    Parameters
    ----------
    model : LBGapClassifier
        Estimator during its fit.
    task : sklearn.callback.CallbackContext or None
        Context of the fit; None without callbacks.
    about : dict
        Keyword arguments of the callbacks, from `described_fit`.
    rows, encoded : array-like
        Samples and class numbers in the form that the net takes.
    """
    if task is None:
        yield
        return
    net = model.net_

    def fitted() -> dict[str, Any]:
        """Return the attributes of a copy of the estimator whose fit ends with this epoch."""
        now = snapshot(net)
        if model.recompute_batch_norm:
            recompute_batch_norm(now.module_, *(net.trained_on_ or (rows, encoded)))
        last = net.history[-1]
        return {"net_": now, "train_loss_": last["train_loss"], "n_iter_": len(net.history)}

    tasks = EpochTasks(task, about, fitted)
    net.callbacks_.append(("epoch_tasks", tasks))
    try:
        yield
    finally:
        net.callbacks_ = [item for item in net.callbacks_ if item[1] is not tasks]
