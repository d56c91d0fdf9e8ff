"""scikit-learn's own callbacks (``set_callbacks``), where the library has them: from 1.9 on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sklgap._evaluation import recompute_batch_norm
from sklgap.training._epoch_tasks import EpochTasks
from sklgap.training._recorder import snapshot

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # older: there is nothing to support

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for scikit-learn's."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Stand in for scikit-learn's."""
        return method


__all__ = ["CallbackSupportMixin", "epoch_tasks", "fit_task", "with_callbacks"]


def fit_task(model: Any) -> Any:
    """Return scikit-learn's context of a fit; None where nothing listens."""
    if not getattr(model, "_skl_callbacks", None):
        return None
    epochs = None if model.regime_adaptation else model.max_epochs  # as many as the number of updates takes
    return model._init_callback_context(max_subtasks=epochs)


@contextmanager
def epoch_tasks(model: Any, task: Any, X: Any, y: Any, rows: Any, encoded: Any) -> Iterator[None]:
    """Within it every epoch of ``model.net_`` is a subtask of ``task``.

    Parameters
    ----------
    model : LBGapClassifier
        In its fit.
    task : CallbackContext or None
        From `fit_task`.
    X, y : array-like
        As the callbacks see them.
    rows, encoded : array-like
        As the net sees them.
    """
    if task is None:
        yield
        return
    net = model.net_

    def fitted() -> dict[str, Any]:
        """Return what makes a copy of the estimator one whose fit has ended with this epoch."""
        now = snapshot(net)
        if model.recompute_batch_norm:
            recompute_batch_norm(now.module_, *(net.trained_on_ or (rows, encoded)))
        last = net.history[-1]
        return {"net_": now, "train_loss_": last["train_loss"], "n_iter_": len(net.history)}

    told = EpochTasks(task, {"estimator": model, "X": X, "y": y}, fitted)
    net.callbacks_.append(("epoch_tasks", told))
    try:
        yield
    finally:
        net.callbacks_ = [item for item in net.callbacks_ if item[1] is not told]
