"""The monitor of the batch size as a callback of the ``Trainer`` of Hugging Face Transformers."""

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
    """Measure the gradient noise scale while a ``Trainer`` trains, to find the batch size that is useful for speed.

    With ``gradient_accumulation_steps`` of at least 2, the micro-batches are the parts, which costs no forward or
    backward pass. Without accumulation, the callback evaluates parts of a batch again from time to time.

    Parameters
    ----------
    trainer : transformers.Trainer
        The trainer to which you add the callback. Without it a callback does not see batches and gradients.
    loss : callable, default=None
        For a training without accumulation: a function ``loss(model, batch)`` that returns the mean loss of a batch, or
        (mean loss, weight of the batch). None means the ``compute_loss`` of Transformers. It is required for a subclass
        that overrides ``compute_loss``, because the override may log or count, and would then do so twice.
    every, parts, parameters, geometry, max_overhead, window : optional
        As in `BatchSizeMonitor`.
    verbose : bool, default=True
        Whether to print the verdict at the end of the training.

    Attributes
    ----------
    monitor : BatchSizeMonitor or None
        The monitor of the last ``train``; None before the first.

    Notes
    -----
    The weights are bit for bit those of a training without the callback. Whenever the trainer logs its loss, the
    callback logs `BatchSizeMonitor.state` through ``trainer.log``, as ``batch_size_monitor/noise_scale`` and so on.

    If the loss is a mean over target tokens, a part counts by its number of target tokens, and the noise scale is a
    number of tokens. Otherwise samples count. The trainer passes ``num_items_in_batch`` to models that accept keywords.
    The first batch shows, in up to three passes without gradient, whether the loss divides by that number. If it does
    not, the loss of an update is the mean of the means of its micro-batches. Then the callback does not measure updates
    with unequal micro-batches, and counts them in ``n_skipped``.

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
        self._sizes: list[int] = []  # sizes of the micro-batches of the current update
        self._given: Any = None  # the number of items of the update that the trainer passes
        self._count: Count | None = None  # a function that returns the weight of a batch
        self._own_loss = False  # whether compute_loss differs from that of Transformers
        # functions replaced during the training: (owner, name, previous value)
        self._held: list[tuple[Any, str, Any]] = []
        self._divides = False  # whether the loss is a sum divided by the given number of items

    # -- the training ------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Create the monitor, or raise an error if this training cannot be measured correctly."""
        self._let_go()
        trainer = self.trainer
        if args.world_size > 1 or args.n_gpu > 1 or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
            raise ValueError(
                "args must name one device for BatchSizeCallback, without FSDP and DeepSpeed; measure in one process "
                "(CUDA_VISIBLE_DEVICES=0), or use sklgap.monitor.BatchSizeMonitor in your own training loop."
            )
        self._accumulates = args.gradient_accumulation_steps > 1
        self._own_loss = getattr(trainer.compute_loss, "__func__", None) is not Trainer.compute_loss
        if not self._accumulates and self.loss is None and self._own_loss:
            raise ValueError(
                f"loss must be given to BatchSizeCallback for {type(trainer).__name__}, which overrides compute_loss, "
                "unless gradient_accumulation_steps is at least 2; got None."
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
                    f"compute_loss of {type(self.trainer).__name__} must return the same value as that of Trainer for "
                    f"BatchSizeCallback, which otherwise cannot weight the micro-batches; got {found:g} instead of "
                    f"{expected:g}; use sklgap.monitor.BatchSizeMonitor in training_step."
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
        """Restore the functions that the callback has replaced."""
        while self._held:
            owner, name, before = self._held.pop()
            vars(owner).pop(name, None)
            if before is not None:
                vars(owner)[name] = before

    def _see(self, model: Any, inputs: Any, given: Any) -> float | None:
        """Measure the parts of a batch, or note the weight of the micro-batch.

        For a trainer that overrides ``compute_loss``, the first call returns the loss that it must compute.
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
        """Measure an update that consists of micro-batches."""
        self._sizes = []
        if self._accumulates and self.monitor is not None and self.monitor._open is not None:
            # Sums divided by one number add up for any sizes of the micro-batches. Means add up only if the sizes are
            # equal.
            self.monitor._lenient = not self._divides
            self.monitor.step()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Log the estimates when the trainer has logged its loss."""
        found = numbers_to_log(self.monitor) if not self._logs and logs and "loss" in logs else {}
        if found:
            self._logs = True  # the trainer calls this method again when it logs the estimates
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
        """Return the mean loss of a batch as Transformers computes it, and the weight of the batch."""
        assert self._count is not None
        n = self._count(batch)
        # Without a target token the sum is 0, and the mean is not defined.
        return self._computed(batch, max(n, 1) if self._divides else self._given), float(n)

    def _computed(self, batch: Any, given: Any) -> Tensor:
        if isinstance(given, int):
            given = torch.tensor(given, device=self.trainer.args.device)
        return Trainer.compute_loss(self.trainer, self._model, dict(batch), num_items_in_batch=given)

    def _value(self, batch: Any, given: Any) -> float:
        """Return the loss of a batch, always with the same random numbers, without changing anything."""
        assert self.monitor is not None
        with unchanged(self.monitor.module, self.monitor._params), torch.no_grad():
            return float(self._computed(batch, given))

    def _how_it_counts(self, batch: Any) -> tuple[Count, bool]:
        """Return a function for the weight of a batch, and whether the loss divides by the number of items it receives.

        The trainer passes the number of items to all models that accept any keyword, and many of them do not use it.
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
            "loss must be given to BatchSizeCallback, because the weight of a batch in the loss of the model is not "
            f"known; its sum is {total:g} and its mean {mean:g}."
        )

    def _trainer_counts(self, batch: Any) -> int:
        """Return the number of items as the trainer counts those of an update and passes them to a loss function."""
        return int(self.trainer.get_batch_samples(iter([batch]), 1, self.trainer.args.device)[1])

    def _mean_counts(self, batch: Any) -> int:
        """Return the number of terms in the mean that the model computes without a given number of items."""
        labels = batch.get("labels")
        if self.loss is not None or not isinstance(labels, Tensor) or labels.is_floating_point() or labels.ndim < 2:
            return _rows(batch)
        if labels.ndim > 2:
            raise ValueError(
                f"loss must be given to BatchSizeCallback for labels of shape {tuple(labels.shape)}, because it is "
                "not known which of them count; got None."
            )
        return _shifted_labels(batch) if getattr(self.trainer, "_loss_shifts_labels", False) else _labels(batch)


def _rows(batch: Any) -> int:
    return number_of_rows(batch)


def _labels(batch: Any) -> int:
    return int(batch["labels"].ne(_IGNORED).sum())


def _shifted_labels(batch: Any) -> int:
    """Return the number of targets if every token predicts the next one."""
    return int((batch["shift_labels"] if "shift_labels" in batch else batch["labels"][..., 1:]).ne(_IGNORED).sum())
