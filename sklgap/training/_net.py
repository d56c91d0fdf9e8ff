"""The skorch net that trains: skorch's shell around `TrainStep`."""

import numbers
import sys
from typing import Any

import torch
from sklearn.exceptions import NotFittedError
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochScoring, EpochTimer, PassthroughScoring
from skorch.dataset import unpack_data
from skorch.utils import to_tensor
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sklgap._checks import given_to
from sklgap._typing import Batch, Criterion
from sklgap.nets import convert_to_ghost_batch_norm, initialize_weights
from sklgap.objective._batch_norm import batch_norm_layers
from sklgap.objective._check import own_loss
from sklgap.objective._loss import make_loss_fn, per_sample
from sklgap.objective._parameters import copy_of, trainable_parameters
from sklgap.objective._tensors import as_tensor
from sklgap.regimes import BatchRegime, LRSchedule, default_base_batch_size, n_batches, updates_of_epochs
from sklgap.remedies import Remedy
from sklgap.training._callbacks import EpochRecorder, StoppingRule, TrainingProgress, raised_by_code
from sklgap.training._checkpoint import Checkpoint
from sklgap.training._data_parallel import check_same_rows, largest_share, share_out
from sklgap.training._datasets import tensors_of
from sklgap.training._encoding import DataEncoding
from sklgap.training._gradient_variance import measure_gradients
from sklgap.training._learning_rate import multiplied_lr
from sklgap.training._loaders import ResidentLoader, SequentialLoader, make_loader
from sklgap.training._random import derive_seed, seed_generators, seeded
from sklgap.training._step import TrainStep

# What a further fit of a warm start takes from the estimator's parameters as they are then.
ADOPTED = (
    "max_epochs",
    "lr",
    "batch_size",
    "regime",
    "remedies",
    "micro_batch_size",
    "lr_schedule",
    "base_batch_size",
    "regime_adaptation",
    "stopping",
    "data_parallel",
    "warm_start",
)


class StopTraining(Exception):
    """Raised inside the fit loop to end it in order."""


class TrainingNet(NeuralNetClassifier):
    """A skorch classifier with a batch regime, remedies, and a fast data path; `LBGapClassifier` makes it.

    The parameters beyond skorch's arrive resolved (no shorthands) and are documented in `LBGapClassifier`; ``seed`` is
    the integer that all randomness comes from.
    """

    module_: Any
    criterion_: Any
    step_: TrainStep
    n_updates_: int
    encoding_: DataEncoding

    def __init__(
        self,
        module: Any,
        *args: Any,
        regime: BatchRegime,
        remedies: tuple[Remedy, ...] = (),
        init: Any = None,
        ghost_batch_size: int | None = None,
        micro_batch_size: int | None = None,
        lr_schedule: LRSchedule = LRSchedule(),  # noqa: B008 - frozen
        base_batch_size: int | None = None,
        regime_adaptation: bool = False,
        stopping: tuple[float | None, int, float | None] = (None, 10, None),
        data_parallel: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.regime = regime
        self.remedies = remedies
        self.init = init
        self.ghost_batch_size = ghost_batch_size
        self.micro_batch_size = micro_batch_size
        self.lr_schedule = lr_schedule
        self.base_batch_size = base_batch_size
        self.regime_adaptation = regime_adaptation
        self.stopping = stopping
        self.data_parallel = data_parallel
        self.seed = seed
        super().__init__(module, *args, **kwargs)

    # -- building the parts ----------------------------------------------------------------------------------------

    def get_default_callbacks(self) -> list[tuple[str, Any]]:
        """Return skorch's timer, our record and stopping rule, and the validation scores where there is a split."""
        callbacks = [("epoch_timer", EpochTimer()), ("epoch_recorder", EpochRecorder())]
        if self.train_split:
            callbacks.append(("valid_loss", PassthroughScoring(name="valid_loss")))
            callbacks.append(("valid_acc", EpochScoring("accuracy", name="valid_acc", lower_is_better=False)))
        callbacks.append(("stopping_rule", StoppingRule(*self.stopping)))
        if self.verbose:
            callbacks.append(("training_progress", TrainingProgress()))
        return callbacks

    def initialize(self) -> "TrainingNet":
        """Initialise all parts, drawing the starting point from ``seed`` alone."""
        self.n_updates_ = 0
        self.lr_factor_ = 1.0
        self.weights_averaged_ = False
        self.stopping_reason_: str | None = None
        self.interrupted_ = False
        self.checkpoint_: Checkpoint | None = None
        with seeded(derive_seed(self.seed, 0), torch.device(self.device)):
            return super().initialize()

    def initialize_module(self) -> "TrainingNet":
        """Build the module and draw its weights; an instance keeps its own."""
        with given_to("module", self.module, self.get_params_for("module")):
            super().initialize_module()
        if self.init is not None:
            initialize_weights(self.module_, self.init)
        if self.ghost_batch_size is not None:
            self.module_ = convert_to_ghost_batch_norm(self.module_, self.ghost_batch_size)
        return self

    def initialize_criterion(self) -> "TrainingNet":
        """Build the criterion."""
        with given_to("criterion", self.criterion, self.get_params_for("criterion")):
            super().initialize_criterion()
        return self

    def initialize_optimizer(self, *args: Any) -> "TrainingNet":
        """Build the optimiser, and the training step around it."""
        with given_to("optimizer", self.optimizer, self.get_params_for("optimizer")):
            super().initialize_optimizer(*args)
        self._build_step()
        # skorch moves what starts with "module_" between devices when it unpickles.
        self.module_start_ = copy_of(self.step_.params)
        return self

    def _build_step(self) -> None:
        params = trainable_parameters(self.module_)
        if any(p.requires_grad for p in self.criterion_.parameters()):
            raise ValueError("criterion must not have trainable parameters.")
        for remedy in self.remedies:
            remedy.check_criterion(self.criterion_)
        self.step_ = TrainStep(
            make_loss_fn(self.module_, self._training_loss, params, self._row_losses),
            params,
            dict(self.module_.named_buffers()),
            self.optimizer_,
            self.remedies,
            micro_batch_size=self.micro_batch_size,
            spread=share_out(self.module_) if self.data_parallel else None,
            on_grad=self._notify_grad,
        )

    def _training_loss(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return self.get_loss(y_pred, y, training=True)

    def _row_losses(self, y_pred: Tensor, y: Tensor) -> Tensor:
        """Return the loss of every row, for remedies that weigh rows."""
        whole = self.criterion_
        try:
            self.criterion_ = per_sample(whole)
            return self.get_loss(y_pred, y, training=True)
        finally:
            self.criterion_ = whole

    def _notify_grad(self, batch: Batch) -> None:
        self.notify("on_grad_computed", named_parameters=self.step_.params.items(), batch=batch, training=True)

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Split off validation rows."""
        with given_to("train_split", self.train_split, {}):
            return super().get_split_datasets(X, y, **fit_params)

    # -- the data path ---------------------------------------------------------------------------------------------

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Slice tensors; a user's own dataset or iterator takes skorch's way."""
        tensors = tensors_of(dataset)
        name = "iterator_train" if training else "iterator_valid"
        if training:
            self._check_sizes(len(dataset))
            self._settle_budget(len(dataset))
            self.trained_on_ = tensors
            if self.data_parallel:
                check_same_rows(tensors or (), len(dataset), torch.device(self.device))
        if tensors is None or getattr(self, name) is not DataLoader or self.get_params_for(name):
            with given_to(name, getattr(self, name), self.get_params_for(name)):
                return super().get_iterator(dataset, training)
        device = torch.device(self.device)
        if not training:
            return SequentialLoader(*tensors, batch_size=min(1024, len(dataset)), device=device)
        self._check_ghosts(len(dataset))
        limit = None if self.max_updates_ is None else self.max_updates_ // self.step_.inner_steps
        seed = derive_seed(self.seed, 1)
        return make_loader(*tensors, self._batch_size_of, seed=seed, device=device, max_batches=limit)

    def _check_sizes(self, n_samples: int) -> None:
        """Check every epoch's batch size before the first one, as far as it is known then."""
        for epoch in range(1 if self.regime.adaptive else self.max_epochs):
            self._check_size(self.regime.batch_size(epoch, n_samples), epoch, n_samples)

    def _check_size(self, size: Any, epoch: int, n_samples: int) -> int:
        if isinstance(size, bool) or not isinstance(size, numbers.Integral) or not 1 <= int(size) <= n_samples:
            raise ValueError(
                f"batch_regime must return integers from 1 to {n_samples}; got {size!r} for epoch {epoch}."
            )
        if self._seen_at_once(min(int(size), n_samples)) == 1 and batch_norm_layers(self.module_):
            raise ValueError("A net with batch normalisation needs batches of at least 2 rows; got batches of 1.")
        return int(size)

    def _seen_at_once(self, size: int) -> int:
        """Return how many rows of a batch of that size batch norm sees at once."""
        size = min([size, *(remedy.sub_batch_size or size for remedy in self.remedies)])
        return min(largest_share(size) if self.data_parallel else size, self.micro_batch_size or size)

    def _check_ghosts(self, n_samples: int) -> None:
        """Check that ghost batch norm is not plain batch norm throughout."""
        if self.ghost_batch_size is None or not batch_norm_layers(self.module_):
            return
        # An adaptive regime, more epochs than max_epochs, or the next warm start may come to larger batches.
        grows = self.regime.adaptive or (self.regime.varies and (self.regime_adaptation or self.warm_start))
        sizes = [n_samples] if grows else [self.regime.batch_size(i, n_samples) for i in range(self.max_epochs)]
        largest = self._seen_at_once(max(sizes))
        if largest < self.ghost_batch_size:
            raise ValueError(
                f"ghost_batch_size must be at most the largest batch that batch norm sees, {largest} rows; "
                f"got {self.ghost_batch_size}."
            )

    def _batch_size_of(self, epoch: int) -> int:
        """Return the rows of a batch in an epoch: from the schedule, or from the record of the epoch before."""
        if not (self.regime.adaptive and epoch):
            return self.regime.batch_size(epoch, self.n_samples_)
        size = self.regime.next_batch_size(self.history[epoch - 1], self.n_samples_)
        return self._check_size(size, epoch, self.n_samples_)

    def _settle_budget(self, n_samples: int) -> None:
        """Decide what depends on the number of training rows, which a train split makes smaller than the data."""
        base = default_base_batch_size(n_samples) if self.base_batch_size is None else self.base_batch_size
        self.base_batch_size_ = min(base, n_samples)
        self.n_samples_ = n_samples
        self.max_updates_ = self.patience_updates_ = None
        if self.regime_adaptation:
            steps = self.step_.inner_steps
            budget = updates_of_epochs(self.max_epochs, self.base_batch_size_, n_samples)
            self.max_updates_ = self.updates_before_ + budget * steps
            self.patience_updates_ = self.stopping[1] * steps * n_batches(n_samples, self.base_batch_size_)

    def pop_training_data(self, X: Any, y: Any) -> Any:
        """Return the rows that were trained on, once: all of X without a train split."""
        tensors, self.trained_on_ = getattr(self, "trained_on_", None), None
        return (X, y) if tensors is None else tensors

    def adopt(self, other: "TrainingNet") -> None:
        """Go on with the parameters of ``other`` from here on: for a warm start."""
        if other.lr != self.lr:
            for group in self.optimizer_.param_groups:
                group["lr"] = other.lr
        for name in ADOPTED:
            setattr(self, name, getattr(other, name))
        rule = dict(self.callbacks_)["stopping_rule"]
        rule.tol, rule.n_iter_no_change, rule.target_loss = self.stopping
        self._build_step()

    # -- the loop --------------------------------------------------------------------------------------------------

    def fit_loop(self, X: Any, y: Any = None, epochs: int | None = None, **kwargs: Any) -> "TrainingNet":
        """Train; the global random state is as before afterwards."""
        if not hasattr(self, "step_"):  # unpickled
            self._build_step()
        resumes = self.checkpoint_ is not None  # a fit that is kept starts from the initial weights
        self.updates_before_ = 0 if resumes else self.n_updates_
        if epochs is None:
            epochs = self.max_epochs - (len(self.history) if resumes else 0)
            epochs = sys.maxsize if self.regime_adaptation else epochs  # the number of updates ends it
        self.interrupted_ = False
        try:
            with seeded(self.seed, torch.device(self.device)):
                super().fit_loop(X, y, epochs=epochs, **kwargs)
        except StopTraining:
            pass
        except KeyboardInterrupt:
            self.interrupted_ = True  # skorch is about to swallow it
            raise
        return self

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call the callbacks; a KeyboardInterrupt that one raises at the end of an epoch is skorch's early stopping."""
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as stop:
            if method_name != "on_epoch_end" or not raised_by_code(stop):
                raise
            self.stopping_reason_ = "stopped by a callback"
            raise StopTraining from stop
        if method_name == "on_train_begin" and self.checkpoint_ is not None:
            self.checkpoint_.after_train_begin(self)
        if method_name == "on_epoch_end" and self.stopping_reason_ is not None:
            raise StopTraining
        if method_name == "on_epoch_end" and self.checkpoint_ is not None:
            self.checkpoint_.after_epoch(self)

    def run_single_epoch(self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any) -> None:
        """Run over the batches without a host sync per batch; the recorder writes the history at the end."""
        if training:
            self._begin_epoch(iterator)
        if not training or not self.own_batches_:
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            return
        count = 0
        for count, batch in enumerate(iterator, start=1):  # noqa: B007
            self.notify("on_batch_begin", batch=batch, training=True)
            step = step_fn(batch)
            self.notify("on_batch_end", batch=batch, training=True, **step)
        if not any(self.history[-1]["batches"]):
            self.history[-1]["batches"] = []  # skorch opens a row for every batch; no callback wrote into them
        self.history.record(prefix + "_batch_count", count)
        self._measure_gradients(iterator)

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Make one update with the training step."""
        X, y = unpack_data(batch)
        if not self.own_batches_:
            X, y = to_tensor(X, device=self.device), to_tensor(y, device=self.device)
        if not self.module_.training:
            self._set_training(True)
        self.n_updates_ += self.step_.inner_steps
        if self.lr_schedule.follows_progress:
            self._set_lr_factor()
        self.progress_[1] += 1
        if self.lr_factor_ == 1:
            return self.step_(Batch(X, y))
        with multiplied_lr(self.optimizer_, self.lr_factor_):
            return self.step_(Batch(X, y))

    def _begin_epoch(self, iterator: Any) -> None:
        """Set what depends on the epoch: order of the rows, random streams, batch size, learning rate."""
        epoch = len(self.history) - 1
        seed_generators(derive_seed(self.seed, 2, epoch), torch.device(self.device))
        self.step_.rng.manual_seed(derive_seed(self.seed, 3, epoch))
        self._set_training(True)
        self.size_ = size = self._batch_size_of(epoch)
        self.epoch_batch_size_: int | None = None
        self.own_batches_ = hasattr(iterator, "set_epoch")
        if self.own_batches_:
            iterator.set_epoch(epoch, batches_before=self.n_updates_ // self.step_.inner_steps)
            self.epoch_batch_size_ = size
        self.progress_ = self._progress(epoch, iterator)
        self._set_lr_factor()

    def _progress(self, epoch: int, iterator: Any) -> list[int]:
        """Return [epochs done, batches done since, batches of an epoch], with epochs as the parameters count them."""
        if self.regime_adaptation:
            before = sum(row["train_batch_count"] for row in self.history[:epoch])
            return [0, before, n_batches(self.n_samples_, self.base_batch_size_)]
        return [epoch, 0, len(iterator) if hasattr(iterator, "__len__") else n_batches(self.n_samples_, self.size_)]

    def _set_lr_factor(self) -> None:
        whole, batches, per_epoch = self.progress_
        self.lr_factor_ = self.lr_schedule.factor(whole + batches / per_epoch, self.size_, self.base_batch_size_)

    def _measure_gradients(self, loader: ResidentLoader) -> None:
        """Record how the gradients of mini-batches vary at the weights reached, where the regime asks for it."""
        wanted = self.regime.measured_batches(self.size_, self.n_samples_)
        if wanted:
            seed = derive_seed(self.seed, 4, len(self.history) - 1)
            for name, value in measure_gradients(self.step_, loader, wanted, self.size_, seed).items():
                self.history.record(name, value)

    # -- measuring -------------------------------------------------------------------------------------------------

    def objective_parts(self, X: Any, y: Any) -> tuple[nn.Module, Criterion, Tensor, Tensor]:
        """Return what `check_objective` measures, also while training runs: X and y as the estimator takes them."""
        if not hasattr(self, "encoding_"):
            raise NotFittedError("This TrainingNet is not fitted yet; call 'fit' of its estimator first.")
        rows, target = self.encoding_.encode(X, y)
        return self.module_, own_loss(self), as_tensor(rows), as_tensor(target)

    # -- pickling --------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the step, which holds the same tensors again; ``fit_loop`` builds it anew."""
        state = super().__getstate__()
        state.pop("step_", None)
        state.pop("trained_on_", None)
        state["checkpoint_"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Give the optimiser back what torch's pickles leave out: attributes of its own, as LBFGS and LARS have."""
        super().__setstate__(state)
        if hasattr(self, "optimizer_"):
            kept = self.optimizer_.state_dict()
            super().initialize_optimizer()
            self.optimizer_.load_state_dict(kept)
