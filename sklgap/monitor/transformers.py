"""`BatchSizeMonitor` as a callback of the ``Trainer`` of Hugging Face's Transformers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sklgap._checks import shown
from sklgap.monitor._batches import number_of_rows
from sklgap.monitor._callback import check_installed, monitor_of, numbers_to_log
from sklgap.monitor._noise import BatchSizeMonitor, Geometry
from sklgap.objective._parameters import Patterns

try:
    from transformers import Trainer, TrainerCallback
except ImportError:  # the documentation is built without it
    Trainer = TrainerCallback = object

__all__ = ["BatchSizeCallback"]
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
    number of tokens: where the trainer passes ``num_items_in_batch``, and for labels with a number for every token.
    Else samples count. Accumulation without ``num_items_in_batch`` takes the mean of the means of the micro-batches:
    updates whose micro-batches are unequal are not measured then, and count in ``n_skipped``.

    During the training, ``compute_loss`` of the trainer and ``backward`` of its accelerator pass through the callback.
    Several GPUs or processes, FSDP and DeepSpeed are refused.

    Examples
    --------
    >>> from sklgap.monitor.transformers import BatchSizeCallback
    >>> trainer = Trainer(model, args, train_dataset=dataset)  # doctest: +SKIP
    >>> callback = BatchSizeCallback(trainer)  # doctest: +SKIP
    >>> trainer.add_callback(callback)  # doctest: +SKIP
    >>> trainer.train()  # doctest: +SKIP
    16,384: each doubling still nearly halves the updates; the knee is at about 210,000 [160,000, 300,000]; ...
    >>> callback.monitor.state()["noise_scale"]  # doctest: +SKIP
    212345.6
    """

    def __init__(
        self,
        trainer: Any,
        loss: Any = None,
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
        self.options: dict[str, Any] = {
            "every": every,
            "parts": parts,
            "parameters": parameters,
            "geometry": geometry,
            "max_overhead": max_overhead,
            "window": window,
        }
        self.monitor: BatchSizeMonitor | None = None
        self._accumulates = self._logs = False
        self._model: Any = None
        self._sizes: list[int] = []  # of the micro-batches of the update so far
        self._n_items: int | None = None  # of the update, as the trainer counts them

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
        own = type(trainer).compute_loss is not Trainer.compute_loss
        if not self._accumulates and self.loss is None and own:
            raise ValueError(
                f"loss must be given to BatchSizeCallback for {type(trainer).__name__}, which has a compute_loss of its "
                "own, unless gradient_accumulation_steps is at least 2; got None."
            )
        optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
        loss = self._trainers_loss if self.loss is None else self.loss
        self.monitor = monitor_of(trainer.model, loss, optimizer, self.options, trainer.accelerator.scaler)
        self._sizes, self._n_items = [], None
        self._take_hold()

    def _take_hold(self) -> None:
        """Let ``compute_loss`` and ``backward`` pass through the callback."""
        compute_loss, backward = self.trainer.compute_loss, self.trainer.accelerator.backward

        def computing_loss(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if model.training:
                self._see(model, inputs, kwargs.get("num_items_in_batch"))
            return compute_loss(model, inputs, *args, **kwargs)

        def going_backward(loss: Tensor, **kwargs: Any) -> None:
            size = self._sizes[-1] if self._sizes else 0
            if not self._accumulates or not size or self.monitor is None:
                backward(loss, **kwargs)
                return
            with self.monitor.accumulate(size):
                backward(loss, **kwargs)

        self.trainer.compute_loss = computing_loss
        self.trainer.accelerator.backward = going_backward

    def _let_go(self) -> None:
        vars(self.trainer).pop("compute_loss", None)
        vars(self.trainer.accelerator).pop("backward", None)

    def _see(self, model: Any, inputs: Any, n_items: Any) -> None:
        """Measure the parts of a batch, or note what the micro-batch counts for."""
        assert self.monitor is not None
        self._model, self._n_items = model, None if n_items is None else int(n_items)
        if self._accumulates:
            self._sizes.append(number_of_rows(inputs) if n_items is None else self._items(inputs))
        else:
            self.monitor.step(dict(inputs))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure an update that was made of micro-batches."""
        sizes, self._sizes = self._sizes, []
        if not self._accumulates or self.monitor is None or self.monitor._open is None:
            return
        if self._n_items is not None and sum(sizes) != self._n_items:
            raise ValueError(
                f"num_items_in_batch must be the number of target tokens of the micro-batches, {sum(sizes)}; got "
                f"{self._n_items}."
            )
        # Sums divided by one number add up whatever their sizes; means do where the sizes are equal.
        self.monitor._lenient = self._n_items is None
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

    def _items(self, inputs: Any) -> int:
        """Return the number of items of a batch as the trainer counts those of an update."""
        n_items = self.trainer.get_batch_samples(iter([inputs]), 1, self.trainer.args.device)[1]
        if n_items is None:
            raise ValueError("labels must be among the inputs of every micro-batch; it is not where items are counted.")
        return int(n_items)

    def _trainers_loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, float]:
        """Return the mean loss of a batch as Transformers computes it, and what the batch counts for."""
        if self._n_items is None:
            n, given = self._counted(batch), None
        else:
            n = self._items(batch)
            given = batch["labels"].new_tensor(max(n, 1))  # without a target token the sum is 0
        loss = Trainer.compute_loss(self.trainer, self._model, dict(batch), num_items_in_batch=given)
        return loss, float(n)

    def _counted(self, batch: Any) -> int:
        """Return the number of terms in the mean that a model takes by itself."""
        labels = batch.get("labels")
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.ndim < 2:
            return number_of_rows(batch)
        if labels.ndim > 2:
            raise ValueError(
                f"loss must be given to BatchSizeCallback for labels of shape {tuple(labels.shape)}: which of them "
                "count is not known; got None."
            )
        shifted = getattr(self.trainer, "_loss_shifts_labels", False)
        return int((labels[..., 1:] if shifted else labels).ne(_IGNORED).sum())
