"""The end of a fit: fitted attributes from the trained net, and a warning if the training did not end well."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklgap.estimator._evaluation import accuracy, recompute_batch_norm


def finish_fit(model: Any, X: Any, encoded: np.ndarray) -> None:
    """Set the fitted attributes, and warn if the training did not converge."""
    net = model.net_
    if len(net.history) and "train_loss" not in net.history[-1]:
        del net.history[-1]  # the epoch that Ctrl-C cut short
    rows, target = net.pop_training_data(X, encoded)
    model.n_iter_ = len(net.history)
    model.n_updates_ = net.n_updates_
    if not model.n_iter_:
        raise KeyboardInterrupt  # in the first epoch: there are no weights to save yet
    model.train_loss_ = net.history[-1, "train_loss"]
    checkpoint, net.checkpoint_ = net.checkpoint_, None
    if checkpoint and checkpoint.train_score is not None:
        model.train_score_ = checkpoint.train_score
    else:
        score = None
        if model.recompute_batch_norm or net.weights_averaged_:
            score = recompute_batch_norm(net.module_, rows, target)
        if score is None:
            # This pass uses float32, unlike predict, because a second pass over all the data should be fast.
            score = accuracy(net.module_, rows, target, images_last=net.channels_last_)
        model.train_score_ = score
        if checkpoint and not net.interrupted_ and net.ending_error_ is None:
            checkpoint.finish(net, model.train_score_)
    reason = net.stopping_reason_
    model.converged_ = reason in ("loss ceased to improve", "target loss reached")
    if net.interrupted_:
        raise KeyboardInterrupt
    if reason == "loss not finite":
        warnings.warn(
            f"The training loss was no longer a finite number after {model.n_iter_} epochs; "
            f"a smaller learning rate than lr={model.lr} may help.",
            ConvergenceWarning,
            stacklevel=4,
        )
    elif model.tol is not None and reason in (None, "budget spent"):
        warnings.warn(
            f"The training loss was still falling after max_epochs={model.max_epochs} with batches of "
            f"{net.history[-1, 'batch_size']}; "
            "train longer, or set tol=None if this is intended.",
            ConvergenceWarning,
            stacklevel=4,
        )
