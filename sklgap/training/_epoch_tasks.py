"""A callback that reports every epoch to scikit-learn's own callbacks, as a subtask of the fit."""

from collections.abc import Callable
from typing import Any

from skorch.callbacks import Callback


class EpochTasks(Callback):
    """Report the epochs of one fit to scikit-learn's callbacks.

    Parameters
    ----------
    task : sklearn.callback.CallbackContext
        Context of the fit.
    about : dict
        ``estimator``, ``X`` and ``y`` of the fit.
    fitted : callable
        Function that returns the attributes of an estimator whose fit ends with the epoch.
    """

    reads_batches = False

    def __init__(self, task: Any, about: dict[str, Any], fitted: Callable[[], dict[str, Any]]) -> None:
        self.task = task
        self.about = about
        self.fitted = fitted

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.epoch_ = self.task.subcontext(task_name=f"epoch {len(net.history)}")
        self.epoch_.call_on_fit_task_begin(**self.about)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        stop = self.epoch_.call_on_fit_task_end(**self.about, reconstruction_attributes=self.fitted)
        if stop and net.stopping_reason_ is None:
            net.stopping_reason_ = "stopped by a callback"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the fit, which has ended when the net is pickled."""
        return {}
