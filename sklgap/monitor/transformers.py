"""`BatchSizeMonitor` as a callback of the ``Trainer`` of Hugging Face's Transformers."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sklgap._checks import shown
from sklgap.monitor._batches import number_of_rows
from sklgap.monitor._callback import check_installed, monitor_of, numbers_to_log
from sklgap.monitor._loss import BatchLoss
from sklgap.monitor._module import unchanged
from sklgap.monitor._noise import BatchSizeMonitor, Geometry
from sklgap.objective._parameters import Patterns

try:
    from transformers import Trainer, TrainerCallback
except ImportError:  # the documentation is built without it
    Trainer = TrainerCallback = object

__all__ = ["BatchSizeCallback"]
Count = Callable[[Any], int]
_IGNORED = -100


class BatchSizeCallback(TrainerCallback):
    """Measures the gradient noise scale while a ``Trainer`` trains: which batch size is useful for speed.

    With ``gradient_accumulation_steps`` of at least 2 the micro-batches are the parts, which costs no forward or
    backward pass. Without accumulation, parts of a batch are evaluated once more from time to time.

    Parameters
    ----------
    trainer : transformers.Trainer
        The trainer that the callback is added to. A callback does not see batches and gradients without it.
    loss : callable, default=None
        Without accumulation: a function ``loss(model, batch)`` that returns the mean loss of a batch, or (mean loss,
        weight of the batch). None: the ``compute_loss`` of Transformers. It must be given for a subclass with a
        ``compute_loss`` of its own, which may log or count, and would do so twice.
    every, parts, parameters, geometry, max_overhead, window : optional
        As of `BatchSizeMonitor`.
    verbose : bool, default=True
        Print the verdict at the end of the training.

    Attributes
    ----------
    monitor : BatchSizeMonitor or None
        The monitor of the last ``train``; None before the first.

    Notes
    -----
    The weights are bit for bit those of a training without the callback. `BatchSizeMonitor.state` goes through
    ``trainer.log`` whenever the trainer logs its loss, as ``batch_size_monitor/noise_scale`` and so on.

    Where the loss is a mean over target tokens, a part counts by its number of target tokens, and the noise scale is a
    number of tokens. Else samples count. How the loss divides by ``num_items_in_batch``, which the trainer passes to
    models that take keywords, is found out on the first batch, in up to three passes without gradient. A loss that does
    not divide by it is the mean of the means of the micro-batches: updates whose micro-batches are unequal are not
    measured then, and count in ``n_skipped``.

    During the training, ``compute_loss`` of the trainer and ``backward`` of its accelerator pass through the callback.
    Several GPUs or processes, FSDP and DeepSpeed are refused.

    Examples
    --------
    >>> import torch, transformers
    >>> from sklgap.monitor.transformers import BatchSizeCallback
    >>> config = transformers.BertConfig(
    ...     vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    ... )
    >>> model = transformers.BertForSequenceClassification(config)
    >>> tokens = torch.randint(30, (256, 8))
    >>> dataset = [{"input_ids": row, "labels": row[0] % 2} for row in tokens]
    >>> args = transformers.TrainingArguments(
    ...     gradient_accumulation_steps=4, num_train_epochs=1, save_strategy="no", logging_strategy="no",
    ...     report_to="none", use_cpu=True,
    ... )
    >>> trainer = transformers.Trainer(model, args, train_dataset=dataset)
    >>> callback = BatchSizeCallback(trainer, verbose=False)
    >>> trainer.add_callback(callback)
    >>> _ = trainer.train()  # doctest: +ELLIPSIS
    {'train_runtime': ...}
    >>> callback.monitor.n_measurements, callback.monitor.batch_size
    (8, 32)
    >>> callback.monitor.state()["noise_scale"] > 0
    True
    """

    def __init__(
        self,
        trainer: Any,
        loss: BatchLoss | None = None,
        *,
        every: int | None = None,
        parts: int = 8,
        parameters: Patterns | Mapping[str, Patterns] | None = None,
        geometry: Geometry = "euclidean",
        max_overhead: float = 0.03,
        window: int = 100,
        verbose: bool = True,
    ) -> None:
        check_installed(TrainerCallback, "transformers")
        super().__init__()
        if not isinstance(trainer, Trainer):
            raise TypeError(f"trainer must be the Trainer that the callback is added to; got {shown(trainer)}.")
        self.trainer, self.loss, self.verbose = trainer, loss, verbose
        self.every, self.parts, self.parameters, self.geometry = every, parts, parameters, geometry
        self.max_overhead, self.window = max_overhead, window
        self.monitor: BatchSizeMonitor | None = None
        self._accumulates = self._logs = False
        self._model: Any = None
        self._sizes: list[int] = []  # of the micro-batches of the update so far
        self._given: Any = None  # the number of items of the update, as the trainer passes it
        self._count: Count | None = None  # what a batch counts for
        self._own_loss = False  # whether compute_loss is another than that of Transformers
        self._held: list[tuple[Any, str, Any]] = []  # what is replaced during the training: (owner, name, before)
        self._divides = False  # whether the loss is a sum divided by the number of items given

    # -- the training ------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make the monitor, or refuse what cannot be measured right."""
        self._let_go()
        trainer = self.trainer
        if args.world_size > 1 or args.n_gpu > 1 or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
            raise ValueError(
                "args must name one device for BatchSizeCallback, without FSDP and DeepSpeed: measure in one process "
                "(CUDA_VISIBLE_DEVICES=0), or with sklgap.monitor.BatchSizeMonitor in a loop of your own."
            )
        self._accumulates = args.gradient_accumulation_steps > 1
        self._own_loss = getattr(trainer.compute_loss, "__func__", None) is not Trainer.compute_loss
        if not self._accumulates and self.loss is None and self._own_loss:
            raise ValueError(
                f"loss must be given to BatchSizeCallback for {type(trainer).__name__}, which has a compute_loss of "
                "its own, unless gradient_accumulation_steps is at least 2; got None."
            )
        optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
        loss = self._trainers_loss if self.loss is None else self.loss
        self.monitor = monitor_of(trainer.model, loss, optimizer, self, trainer.accelerator.scaler)
        self._sizes, self._given, self._count, self._divides = [], None, None, False
        self._take_hold()

    def _take_hold(self) -> None:
        """Let ``compute_loss`` and ``backward`` pass through the callback."""
        compute_loss, backward = self.trainer.compute_loss, self.trainer.accelerator.backward

        def computing_loss(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not model.training:
                return compute_loss(model, inputs, *args, **kwargs)
            expected = self._see(model, inputs, kwargs.get("num_items_in_batch"))
            loss = compute_loss(model, inputs, *args, **kwargs)
            found = None if expected is None else float(loss.detach())
            if expected is not None and found is not None and not math.isclose(found, expected, rel_tol=1e-3):
                raise ValueError(
                    f"compute_loss of {type(self.trainer).__name__} must return what that of Trainer does for "
                    f"BatchSizeCallback, which else does not know what micro-batches count for; got {found:g} "
                    f"instead of {expected:g}: use sklgap.monitor.BatchSizeMonitor in training_step."
                )
            return loss

        def going_backward(loss: Tensor, **kwargs: Any) -> None:
            size = self._sizes[-1] if self._sizes else 0
            if not self._accumulates or not size or self.monitor is None:
                backward(loss, **kwargs)
                return
            with self.monitor.accumulate(size):
                backward(loss, **kwargs)

        self._replace(self.trainer, "compute_loss", computing_loss)
        self._replace(self.trainer.accelerator, "backward", going_backward)

    def _replace(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        self._held.append((owner, name, vars(owner).get(name)))
        vars(owner)[name] = function

    def _let_go(self) -> None:
        """Put back what stood where the callback has put its own."""
        while self._held:
            owner, name, before = self._held.pop()
            vars(owner).pop(name, None)
            if before is not None:
                vars(owner)[name] = before

    def _see(self, model: Any, inputs: Any, given: Any) -> float | None:
        """Measure the parts of a batch, or note what the micro-batch counts for.

        Returns the loss that a trainer with a ``compute_loss`` of its own must find, the first time.
        """
        assert self.monitor is not None
        self._model, self._given = model, given
        expected = None
        if self._count is None:
            self._count, self._divides = self._how_it_counts(inputs)
            if self._accumulates and self._own_loss and given is not None:
                expected = self._value(inputs, given)
        if self._accumulates:
            self._sizes.append(self._count(inputs))
            self.monitor._tokens = self.monitor._tokens or self._sizes[-1] != number_of_rows(inputs)
        else:
            self.monitor.step(dict(inputs))
        return expected

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure an update that was made of micro-batches."""
        self._sizes = []
        if self._accumulates and self.monitor is not None and self.monitor._open is not None:
            # Sums divided by one number add up whatever their sizes; means do where the sizes are equal.
            self.monitor._lenient = not self._divides
            self.monitor.step()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Log the estimates where the trainer has logged its loss."""
        found = numbers_to_log(self.monitor) if not self._logs and logs and "loss" in logs else {}
        if found:
            self._logs = True  # the trainer calls this again, for these
            try:
                self.trainer.log(found)
            finally:
                self._logs = False

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print the verdict."""
        self._let_go()
        if self.verbose and self.monitor is not None and state.is_world_process_zero:
            print(self.monitor.verdict())

    # -- the loss ----------------------------------------------------------------------------------------------------

    def _trainers_loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, float]:
        """Return the mean loss of a batch as Transformers computes it, and what the batch counts for."""
        assert self._count is not None
        n = self._count(batch)
        # Without a target token the sum is 0, and the mean nothing.
        return self._computed(batch, max(n, 1) if self._divides else self._given), float(n)

    def _computed(self, batch: Any, given: Any) -> Tensor:
        if isinstance(given, int):
            given = torch.tensor(given, device=self.trainer.args.device)
        return Trainer.compute_loss(self.trainer, self._model, dict(batch), num_items_in_batch=given)

    def _value(self, batch: Any, given: Any) -> float:
        """Return the loss of a batch, always with the same random numbers, and leave all as it was."""
        assert self.monitor is not None
        with unchanged(self.monitor.module, self.monitor._params), torch.no_grad():
            return float(self._computed(batch, given))

    def _how_it_counts(self, batch: Any) -> tuple[Count, bool]:
        """Return what a batch counts for in the loss, as a function, and whether the loss divides by what it is given.

        Models that take any keyword are given the number of items, and many of them do not use it.
        """
        if self._given is None or self.loss is not None:
            return self._mean_counts, False
        if self.trainer.compute_loss_func is not None:
            divides = math.isclose(self._value(batch, 1), 2 * self._value(batch, 2), rel_tol=1e-3)
            return (self._trainer_counts, True) if divides else (self._mean_counts, False)
        mean, total = self._value(batch, None), self._value(batch, 1)
        if math.isclose(mean, total, rel_tol=1e-6):
            return self._mean_counts, False
        for count in (_shifted_labels, _labels, _rows):
            if math.isclose(total, count(batch) * mean, rel_tol=1e-3):
                return count, True
        raise ValueError(
            "loss must be given to BatchSizeCallback: what a batch counts for in that of the model is not known; its "
            f"sum is {total:g} and its mean {mean:g}."
        )

    def _trainer_counts(self, batch: Any) -> int:
        """Return the number of items as the trainer counts those of an update, and as a loss function is given it."""
        return int(self.trainer.get_batch_samples(iter([batch]), 1, self.trainer.args.device)[1])

    def _mean_counts(self, batch: Any) -> int:
        """Return the number of terms in the mean that a model takes by itself."""
        labels = batch.get("labels")
        if self.loss is not None or not isinstance(labels, Tensor) or labels.is_floating_point() or labels.ndim < 2:
            return _rows(batch)
        if labels.ndim > 2:
            raise ValueError(
                f"loss must be given to BatchSizeCallback for labels of shape {tuple(labels.shape)}: which of them "
                "count is not known; got None."
            )
        return _shifted_labels(batch) if getattr(self.trainer, "_loss_shifts_labels", False) else _labels(batch)


def _rows(batch: Any) -> int:
    return number_of_rows(batch)


def _labels(batch: Any) -> int:
    return int(batch["labels"].ne(_IGNORED).sum())


def _shifted_labels(batch: Any) -> int:
    """Return the number of targets where every token predicts the next one."""
    return int((batch["shift_labels"] if "shift_labels" in batch else batch["labels"][..., 1:]).ne(_IGNORED).sum())
