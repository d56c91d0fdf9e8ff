"""What the training net does around its steps: the record of an epoch, the stopping rule, the progress bar."""

import dis
import math
from typing import Any

import torch
from skorch.callbacks import Callback
from torch import Tensor
from tqdm.auto import tqdm

from sklgap.objective._loss import is_classification
from sklgap.objective._parameters import squared_distance


class EpochRecorder(Callback):
    """Writes the history once per epoch; until then losses and hits stay on the device.

    Records ``train_loss`` (clean, mean over the rows as they were trained on), ``train_accuracy`` (likewise),
    ``batch_size``, ``lr``, ``n_updates`` (optimiser steps so far), and ``weight_distance`` (Euclidean, from the initial
    weights).
    """

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.losses_: list[Tensor] = []
        self.sizes_: list[int] = []
        self.predicted_: list[Tensor] = []
        self.labels_: list[Tensor] = []

    def on_batch_end(
        self, net: Any, batch: Any = None, training: bool = False, loss: Any = None, y_pred: Any = None, **kwargs: Any
    ) -> None:
        if not training:
            return
        y = batch[1]
        self.losses_.append(loss.detach())
        self.sizes_.append(len(y))
        if is_classification(y_pred, y):
            # Compared once per epoch: on a small net three more operations a batch would be felt.
            self.predicted_.append(y_pred.argmax(dim=1))
            self.labels_.append(y)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        history = net.history
        n_rows = sum(self.sizes_)
        losses = torch.stack(self.losses_).cpu().double()
        shares = torch.tensor(self.sizes_, dtype=torch.float64) / n_rows
        history.record("train_loss", float((losses * shares).sum()))
        if self.predicted_:
            predicted = torch.cat(self.predicted_)
            correct = (predicted == torch.cat(self.labels_).to(predicted.device)).sum()
            history.record("train_accuracy", correct.item() / n_rows)
        history.record("batch_size", max(self.sizes_) if net.epoch_batch_size_ is None else net.epoch_batch_size_)
        history.record("lr", net.optimizer_.param_groups[0]["lr"] * net.lr_factor_)
        history.record("n_updates", net.n_updates_)
        history.record("weight_distance", math.sqrt(squared_distance(net.step_.params, net.module_start_).item()))
        del self.losses_, self.predicted_, self.labels_

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what an interrupted epoch has left behind."""
        return {}


class StoppingRule(Callback):
    """Stop when the training loss ceases to improve, reaches a target, or is no longer a number.

    Parameters
    ----------
    tol : float or None
        The loss must fall by more than this fraction of the best one so far to count as improved; None: never stop.
    n_iter_no_change : int
        Epochs without improvement after which training stops.
    target_loss : float or None
        Stop as soon as the training loss of an epoch is at most this.

    Notes
    -----
    With regime adaptation patience is counted in updates: as many as ``n_iter_no_change`` epochs at the base batch
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
    """A progress bar over the epochs of a fit, with training loss and batch size."""

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


def raised_by_code(error: BaseException) -> bool:
    """Say whether a ``raise`` in the code raised it, rather than the interpreter between two instructions: Ctrl-C."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
