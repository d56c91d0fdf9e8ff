"""Default callbacks of the training net: the record of an epoch, the stopping rule and the progress bar."""

import math
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback, PassthroughScoring
from torch import Tensor
from tqdm.auto import tqdm

from sklgap.objective._loss import is_classification, predicted_classes
from sklgap.objective._parameters import squared_distance

# Number of samples whose predicted classes are computed together.
_PREDICTED_AT_ONCE = 4096


class EpochRecorder(Callback):
    """Write the history once per epoch. During the epoch, losses and correct predictions stay on the device.

    The records are ``train_loss`` (clean, the weighted mean over the samples at the time they were trained on),
    ``train_loss_best`` (whether it is the smallest so far), ``train_accuracy`` (all samples count equally),
    ``batch_size``, ``lr`` (of the last update), ``n_updates`` (optimiser steps so far), and ``weight_distance``
    (Euclidean, from the initial weights). If other callbacks may read them, the records of the batches hold
    ``train_loss`` and ``train_batch_size``, as in skorch.
    """

    writes_batches_ = False

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.losses_: list[Tensor] = []
        self.sizes_: list[int] = []
        self.masses_: list[Tensor] = []
        self.outputs_: list[Tensor] = []
        self.n_outputs_ = 0
        self.predicted_: list[Tensor] = []
        self.labels_: list[Tensor] = []
        own = {name for name, _ in net.get_default_callbacks()}
        others = [callback for name, callback in net.callbacks_ if name not in own]
        self.writes_batches_ = any(getattr(callback, "reads_batches", True) for callback in others)

    def on_batch_end(
        self,
        net: Any,
        batch: Any = None,
        training: bool = False,
        loss: Any = None,
        y_pred: Any = None,
        mass: Any = None,
        **kwargs: Any,
    ) -> None:
        if not training:
            return
        y = batch[1]
        if mass is not None:
            self.masses_.append(mass.detach())
        self.losses_.append(loss.detach())
        self.sizes_.append(len(y))
        # Read the rate here, before a scheduler sets that of the next batch. The last group holds the parameters that
        # no pattern matches.
        self.lr_ = net.optimizer_.param_groups[-1]["lr"] * net.lr_factor_
        if self.writes_batches_ and net.own_batches_:  # otherwise skorch writes them
            # For the code that reads it now, a tensor on a device works like a number, and it needs no host sync.
            net.history.record_batch("train_loss", loss.item() if loss.device.type == "cpu" else loss.detach())
            net.history.record_batch("train_batch_size", len(y))
        if is_classification(y_pred, y):
            # The comparison runs once per epoch, because four more operations per batch would slow down a small net.
            self.outputs_.append(y_pred)
            self.labels_.append(y)
            self.n_outputs_ += len(y)
            if self.n_outputs_ >= _PREDICTED_AT_ONCE:
                self._predict()

    def _predict(self) -> None:
        """Convert the outputs of several batches to predicted classes."""
        if self.outputs_:
            self.predicted_.append(predicted_classes(torch.cat(self.outputs_)))
        self.outputs_, self.n_outputs_ = [], 0

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        history = net.history
        n_rows = sum(self.sizes_)
        losses = torch.stack(self.losses_).cpu().double()
        shares = torch.tensor(self.sizes_, dtype=torch.float64) / n_rows
        if self.masses_:  # like the mean over a batch, the mean over an epoch is a ratio of sums
            masses = torch.stack(self.masses_).cpu().double()
            shares = masses / masses.sum()
        if self.writes_batches_ and net.own_batches_:
            for row, value in zip(history[-1]["batches"], losses.tolist(), strict=False):
                row["train_loss"] = value
        train_loss = float((losses * shares).sum())
        history.record("train_loss", train_loss)
        history.record("train_loss_best", train_loss < _least_before(history))
        self._predict()
        if self.predicted_:
            predicted = torch.cat(self.predicted_)
            correct = (predicted == torch.cat(self.labels_).to(predicted.device)).sum()
            history.record("train_accuracy", correct.item() / n_rows)
        history.record("batch_size", max(self.sizes_) if net.epoch_batch_size_ is None else net.epoch_batch_size_)
        history.record("lr", float(self.lr_))
        history.record("n_updates", net.n_updates_)
        # This includes frozen parameters, which may have moved before they were frozen.
        weights = dict(net.module_.named_parameters())
        history.record("weight_distance", math.sqrt(squared_distance(weights, net.module_start_).item()))
        del (
            self.losses_,
            self.masses_,
            self.outputs_,
            self.n_outputs_,
            self.predicted_,
            self.labels_,
            self.lr_,
            self.writes_batches_,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the remains of an interrupted epoch."""
        return {}


def _least_before(history: Any) -> float:
    """Return the smallest training loss of the epochs before the last one."""
    for i in range(len(history) - 2, -1, -1):
        row = list.__getitem__(history, i)
        if row.get("train_loss_best"):
            return float(row["train_loss"])
    return math.inf


class ValidationLoss(PassthroughScoring):
    """Compute the validation loss of an epoch as a mean over samples, weighted as in training."""

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.masses_: list[float] = []

    def on_batch_end(self, net: Any, training: bool = False, mass: Any = None, **kwargs: Any) -> None:
        if not training and mass is not None:
            self.masses_.append(float(mass))

    def get_avg_score(self, history: Any) -> float:
        """Return the mean over the epoch; NaN if no sample counts."""
        if not self.masses_:
            return float(super().get_avg_score(history))
        if not sum(self.masses_):
            return math.nan
        return float(np.average(history[-1, "batches", :, self.name], weights=self.masses_))


class StoppingRule(Callback):
    """Stop when the training loss ceases to improve, reaches a target, or is not finite.

    Parameters
    ----------
    tol : float or None
        Fraction of the best loss so far by which the loss must fall to count as improved. None turns this rule off.
    n_iter_no_change : int
        Number of epochs without improvement after which training stops.
    target_loss : float or None
        Training stops when the training loss of an epoch is at most this value.

    Notes
    -----
    With regime adaptation, patience is counted in updates: as many as ``n_iter_no_change`` epochs at the base batch
    size have. Keskar et al. (2017) train "until the loss ceases to improve" and give no numbers.
    """

    def __init__(self, tol: float | None, n_iter_no_change: int, target_loss: float | None) -> None:
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.target_loss = target_loss

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.best_ = math.inf
        self.waited_ = 0
        self.updates_at_best_ = net.n_updates_
        net.stopping_reason_ = None

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        loss = net.history[-1, "train_loss"]
        net.stopping_reason_ = self._reason(loss, net)

    def _reason(self, loss: float, net: Any) -> str | None:
        if not math.isfinite(loss):
            return "loss not finite"
        if self.target_loss is not None and loss <= self.target_loss:
            return "target loss reached"
        if net.max_updates_ is not None and net.n_updates_ >= net.max_updates_:
            return "budget spent"
        if self.tol is None:
            return None
        if loss < self.best_ * (1 - self.tol):
            self.best_, self.waited_, self.updates_at_best_ = loss, 0, net.n_updates_
        else:
            self.waited_ += 1
        if net.patience_updates_ is None:
            patient = self.waited_ < self.n_iter_no_change
        else:
            patient = net.n_updates_ - self.updates_at_best_ < net.patience_updates_
        return None if patient else "loss ceased to improve"


class TrainingProgress(Callback):
    """Show a progress bar over the epochs of a fit, with training loss and batch size."""

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        done = 0 if net.checkpoint_ is None else net.checkpoint_.epochs_done
        self.bar_ = tqdm(total=None if net.regime_adaptation else net.max_epochs, initial=done, unit="epoch")

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        row = net.history[-1]
        self.bar_.set_postfix(train_loss=f"{row['train_loss']:.2e}", batch_size=row["batch_size"])
        self.bar_.update()

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        self.bar_.close()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "bar_"}
