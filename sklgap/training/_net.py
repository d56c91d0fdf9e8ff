"""The skorch net that trains: it wraps `TrainStep`."""

import numbers
import pickle
import sys
import warnings
from typing import Any

import numpy as np
import torch
from joblib import wrap_non_picklable_objects
from scipy.sparse import issparse
from sklearn.exceptions import NotFittedError
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochScoring, EpochTimer
from skorch.utils import to_tensor
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sklgap._checks import given_to
from sklgap._tracebacks import raised_by_code
from sklgap._typing import Batch, Criterion, Precision
from sklgap.nets import convert_to_ghost_batch_norm, initialize_weights
from sklgap.objective._batch_norm import batch_norm_layers
from sklgap.objective._check import own_loss
from sklgap.objective._compile import CompiledCalls, CompileWarning
from sklgap.objective._copy import check_plain, deepcopy, lazy_parameters
from sklgap.objective._gradient_hooks import hooked_parameter
from sklgap.objective._loss import ModuleLoss, call_module
from sklgap.objective._memory_format import channels_last, takes_channels_last
from sklgap.objective._outputs import logits_of
from sklgap.objective._parameters import copy_of, trainable_parameters
from sklgap.objective._row_loss import RowLoss, row_loss
from sklgap.objective._stream import Prepared, is_stream
from sklgap.objective._tensors import as_tensor
from sklgap.regimes import BatchRegime, LRSchedule, default_base_batch_size, n_batches, updates_of_epochs
from sklgap.remedies import Remedy
from sklgap.training._callbacks import EpochRecorder, StoppingRule, TrainingProgress, ValidationLoss
from sklgap.training._checkpoint import Checkpoint
from sklgap.training._data_parallel import check_same_rows, largest_share, share_out
from sklgap.training._datasets import WeightedDataset, pair_of, tensors_of, unpacked
from sklgap.training._dtypes import floating_dtype, in_dtype
from sklgap.training._encoding import DataEncoding
from sklgap.training._fused import begin_momenta, fused_kernel
from sklgap.training._gradient_hooks import check_gradient_hooks
from sklgap.training._gradient_variance import measure_gradients
from sklgap.training._learning_rate import check_moments, scaled_step
from sklgap.training._loaders import ResidentLoader, SequentialLoader, make_loader
from sklgap.training._materialize import materialize
from sklgap.training._optimizer_mode import updating
from sklgap.training._parameter_groups import (
    check_options,
    check_parameter_groups,
    is_of_torch,
    refusal,
    set_learning_rate,
)
from sklgap.training._precision import arithmetic, check_can_be_lowered, lowered
from sklgap.training._random import derive_seed, seed_generators, seeded
from sklgap.training._splits import split_as_given
from sklgap.training._step import TrainStep

# Parameters that a further fit of a warm start takes from the current parameters of the estimator.
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
    "precision",
    "warm_start",
    "torch_compile_options",
)


# With more batch sizes than this, the net is not compiled, because each batch size takes seconds.
MAX_SIZES = 4


class StopTraining(Exception):
    """Raised inside the fit loop to end it regularly."""


# The name under which skorch stores what may lie on a GPU.
_BYTES = "__cuda_dependent_attributes__"


class TrainingNet(NeuralNetClassifier):
    """A skorch classifier with a batch regime, remedies and a fast data path; `LBGapClassifier` makes it.

    The parameters that skorch does not have are the resolved parameters of `LBGapClassifier`, without shorthands.

    Parameters
    ----------
    module : type, callable or torch.nn.Module
        The module or its class.
    *args : object
        Further positional arguments of ``skorch.NeuralNetClassifier``.
    regime : BatchRegime
        The batch regime.
    remedies : tuple of Remedy, default=()
        The remedies in their order.
    init : str or callable, default=None
        Starting weights, for `sklgap.nets.initialize_weights`. None does not change the module's weights.
    ghost_batch_size : int or None, default=None
        Number of samples of a ghost batch. None means plain batch norm.
    micro_batch_size : int or None, default=None
        Largest number of samples evaluated at once. None means the whole batch.
    lr_schedule : LRSchedule, default=LRSchedule()
        The factor of the learning rate.
    base_batch_size : int or None, default=None
        The batch size to which the learning rate belongs. None means the small batch of the data.
    regime_adaptation : bool, default=False
        Whether to make as many updates as ``max_epochs`` epochs at the base batch size have.
    stopping : tuple (tol, n_iter_no_change, target_loss), default=(None, 10, None)
        The stopping rule.
    data_parallel : bool, default=False
        Whether the processes of a torch process group share each batch.
    precision : {"float32", "tf32", "bfloat16"}, default="float32"
        The arithmetic of the training.
    class_weight : ndarray of shape (n_classes,) or None, default=None
        Weights of the classes. None means equal weights.
    torch_compile_options : dict or None, default=None
        Options of ``torch.compile``. None does not compile.
    seed : int, default=0
        The seed of all randomness.
    **kwargs : object
        Parameters of ``skorch.NeuralNetClassifier``.
    """

    module_: Any
    criterion_: Any
    step_: TrainStep
    n_updates_: int
    encoding_: DataEncoding
    # Two samples in the input shape of the net, from which lazy modules get their shapes.
    example_: Tensor | None = None
    # The parameter whose gradient hook a copy or a pickle of the net has lost.
    lost_hook_: str | None = None
    ending_error_: BaseException | None = None

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
        precision: Precision = "float32",
        class_weight: np.ndarray | None = None,
        torch_compile_options: dict[str, Any] | None = None,
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
        self.precision = precision
        self.class_weight = class_weight
        self.torch_compile_options = torch_compile_options
        self.seed = seed
        super().__init__(module, *args, **kwargs)

    # -- building the parts ----------------------------------------------------------------------------------------

    def get_default_callbacks(self) -> list[tuple[str, Any]]:
        """Return skorch's timer, the recorder and stopping rule of this package, and validation scores with a split."""
        callbacks = [("epoch_timer", EpochTimer()), ("epoch_recorder", EpochRecorder())]
        if self.train_split:
            callbacks.append(("valid_loss", ValidationLoss(name="valid_loss")))
            callbacks.append(("valid_acc", EpochScoring("accuracy", name="valid_acc", lower_is_better=False)))
        callbacks.append(("stopping_rule", StoppingRule(*self.stopping)))
        if self.verbose:
            callbacks.append(("training_progress", TrainingProgress()))
        return callbacks

    def initialize(self) -> "TrainingNet":
        """Initialise all parts. The starting weights depend on ``seed`` alone."""
        self.n_updates_ = 0
        self.lr_factor_ = 1.0
        self.moments_ratio_ = 1.0
        self.channels_last_ = False
        self.weights_averaged_ = False
        self.stopping_reason_: str | None = None
        self.interrupted_ = False
        self.checkpoint_: Checkpoint | None = None
        with seeded(derive_seed(self.seed, 0), torch.device(self.device)):
            return super().initialize()

    def initialize_module(self) -> "TrainingNet":
        """Build the module and draw its weights; an instance may start from its own weights."""
        self.__dict__.pop("lost_hook_", None)
        with given_to("module", self.module, self.get_params_for("module")):
            super().initialize_module()
        self.module_ = check_plain(self.module_, "net")
        if lazy_parameters(self.module_) and self.example_ is not None:
            materialize(self.module_, self.example_)
        else:
            self.example_ = None
        if self.init is not None:
            initialize_weights(self.module_, self.init)
        if self.ghost_batch_size is not None:
            self.module_ = convert_to_ghost_batch_norm(self.module_, self.ghost_batch_size)
        return self

    def initialize_criterion(self) -> "TrainingNet":
        """Build the criterion, with class weights in the data type of the module."""
        with given_to("criterion", self.criterion, self.get_params_for("criterion")):
            super().initialize_criterion()
        if isinstance(self.criterion_, nn.Module):
            given = self.criterion_ is self.criterion
            self.criterion_ = (deepcopy(self.criterion_) if given else self.criterion_).to(floating_dtype(self.module_))
        return self

    def initialize_optimizer(self, *args: Any) -> "TrainingNet":
        """Build the optimiser and the training step around it."""
        groups = self.get_params_for("optimizer").get("param_groups", [])
        names = [name for name, _ in self.get_all_learnable_params()]
        if not names:
            raise ValueError("net must have parameters to train; the module has 0 of them.")
        check_parameter_groups(groups, names)
        with given_to("optimizer", self.optimizer, self.get_params_for("optimizer")):
            try:
                super().initialize_optimizer(*args)
            except ValueError as error:
                self._refuse_vectors(error)
                raise
        check_options(self.optimizer_, groups)
        begin_momenta(self.optimizer_)
        self._build_step()
        # The name starts with "module_", because skorch moves such attributes between devices when it unpickles.
        self.module_start_ = copy_of(dict(self.module_.named_parameters()))
        return self

    def get_params_for_optimizer(self, prefix: str, named_parameters: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the parameter groups and the options of the optimiser, which is fused if possible."""
        args, options = super().get_params_for_optimizer(prefix, named_parameters)
        given = {name for group in args[0] if isinstance(group, dict) for name in group} | set(options)
        return args, {**fused_kernel(self.optimizer, given, self.module_), **options}

    def _refuse_vectors(self, error: Exception) -> None:
        """Raise an error that says so if the optimiser accepts the matrices only."""
        parameters = list(self.get_all_learnable_params())
        args, kwargs = self.get_params_for_optimizer("optimizer", [item for item in parameters if item[1].ndim == 2])
        try:
            self.optimizer(*args, **kwargs)
        except ValueError:
            if is_of_torch(self.optimizer):
                return
        raise refusal(self.optimizer, parameters, error) from error

    def _build_step(self) -> None:
        params = trainable_parameters(self.module_, owner="net")
        self._check_hooks()
        if any(p.requires_grad for p in self.criterion_.parameters()):
            raise ValueError("criterion must not have trainable parameters.")
        for remedy in self.remedies:
            remedy.check_criterion(self.criterion_)
        self.dtype_ = floating_dtype(self.module_)
        check_can_be_lowered(self.precision, self.dtype_)
        self.watched_ = list(self.module_.parameters())
        self.trained_ = [p.requires_grad for p in self.watched_]
        for parameter in self.watched_:
            parameter.grad = None  # optimisers skip a parameter that has been frozen since
        infer = lowered(self._outputs_of, self.precision, self.device)
        loss = ModuleLoss(self.module_, self.row_loss(training=True), params, infer=infer)
        if self.torch_compile_options is not None and self._differentiated_by() is None:
            loss.compiled = CompiledCalls(self.module_, self.torch_compile_options)
        self.step_ = TrainStep(
            loss,
            params,
            self.optimizer_,
            self.remedies,
            rng=self.step_.rng if hasattr(self, "step_") else None,
            micro_batch_size=self.micro_batch_size,
            spread=share_out(self.module_) if self.data_parallel else None,
            on_grad=self._notify_grad,
        )

    def _check_hooks(self) -> None:
        """Raise a ValueError if a gradient hook of a parameter is lost, or would not get the gradient of each batch."""
        if self.lost_hook_ is not None:
            raise ValueError(
                "net must not have gradient hooks if a copy of it is trained further, because the copy has lost them; "
                f"got a hook on the parameter {self.lost_hook_!r}; fit with warm_start=False."
            )
        check_gradient_hooks(self.module_, self.remedies, self.micro_batch_size, self.data_parallel)

    def _outputs_of(self, module: nn.Module, X: Tensor) -> Tensor:
        """Return the outputs for a batch after the remedies have changed it."""
        return call_module(module, channels_last(X) if self.channels_last_ else X)

    def row_loss(self, training: bool = False) -> RowLoss:
        """Return the training loss as a ratio of sums over samples, weighted by ``class_weight`` and the criterion."""
        loss = self.criterion_loss(training)
        if self.class_weight is None:
            return loss
        dtype = floating_dtype(self.module_)
        return loss.by_class(torch.as_tensor(self.class_weight, dtype=dtype, device=torch.device(self.device)))

    def criterion_loss(self, training: bool = False) -> RowLoss:
        """Return the loss of the criterion as skorch evaluates it, without ``class_weight``."""

        def using(criterion: Criterion) -> Criterion:
            def loss(y_pred: Tensor, y: Tensor) -> Tensor:
                whole = self.criterion_
                if criterion is whole:
                    return self.loss_by_criterion(y_pred, y, training=training)
                try:
                    self.criterion_ = criterion
                    return self.loss_by_criterion(y_pred, y, training=training)
                finally:
                    self.criterion_ = whole

            return loss

        return row_loss(self.criterion_, using)

    def loss_by_criterion(self, y_pred: Tensor, y_true: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the mean loss as skorch evaluates the criterion, without ``class_weight``."""
        return super().get_loss(y_pred, y_true, *args, **kwargs)

    def get_loss(self, y_pred: Tensor, y_true: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the mean loss, with the weights of ``class_weight`` if that is given."""
        if self.class_weight is None:
            return super().get_loss(y_pred, y_true, *args, **kwargs)
        return self.row_loss().mean(y_pred, to_tensor(y_true, device=self.device))

    def _notify_grad(self, batch: Batch) -> None:
        self.notify("on_grad_computed", named_parameters=self.step_.params.items(), batch=batch, training=True)

    def infer(self, x: Any, **fit_params: Any) -> Tensor:
        """Return the logits of samples, which are cast to the data type of the module."""
        rows = to_tensor(x, device=self.device)
        return logits_of(super().infer(in_dtype(rows, floating_dtype(self.module_)), **fit_params))

    # -- the data path ---------------------------------------------------------------------------------------------

    def training_data(self, X: Any, y: np.ndarray, weight: np.ndarray | None = None) -> tuple[Any, np.ndarray]:
        """Return the arguments of ``partial_fit`` for encoded samples, with weights if there are any."""
        if weight is None:
            return X, y
        return WeightedDataset(X, y, torch.as_tensor(weight, dtype=floating_dtype(self.module_))), y

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> tuple[Any, Any]:
        """Return the training samples and the validation samples, both encoded."""
        with given_to("train_split", self.train_split, {}):
            if not self.train_split or not hasattr(self, "encoding_"):
                return super().get_split_datasets(X, y, **fit_params)
            return split_as_given(self, X, y, **fit_params)

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return a loader that slices tensors; for a user's own dataset or iterator, return skorch's loader."""
        tensors = tensors_of(dataset)
        name = "iterator_train" if training else "iterator_valid"
        if training:
            self._check_sizes(len(dataset))
            self._settle_budget(len(dataset))
            self.compiles_ = self._settle_compiled(len(dataset))
            self.trained_on_ = None if tensors is None else tensors[:2]
            if self.data_parallel:
                check_same_rows(tensors or (), len(dataset), torch.device(self.device))
        if tensors is not None and (training or len(tensors) > 2):
            self._check_counted(*tensors[1:])
        if tensors is None or getattr(self, name) is not DataLoader or self.get_params_for(name):
            with given_to(name, getattr(self, name), self.get_params_for(name)):
                return super().get_iterator(dataset, training)
        X, y, weight = (*tensors, None)[:3]
        device = torch.device(self.device)
        if training and not issparse(X):
            self.channels_last_ = takes_channels_last(self.module_, in_dtype(X[:2].to(device), self.dtype_))
        if not training:
            return SequentialLoader(X, y, min(1024, len(dataset)), device, weight)
        self._check_ghosts(len(dataset))
        limit = None if self.max_updates_ is None else self.max_updates_ // self.step_.inner_steps
        seed = derive_seed(self.seed, 1)
        loader = make_loader(X, y, self._batch_size_of, seed=seed, device=device, max_batches=limit, weight=weight)
        if not loader.keeps_data_on_host:
            self.trained_on_ = (loader.X, loader.y)  # on the device, for the evaluations at the end of the fit
        return loader

    def _check_counted(self, y: Tensor, weight: Tensor | None = None) -> None:
        """Raise a ValueError if all samples have weight 0."""
        counted = self.row_loss().weights(y, weight, torch.float64)
        if counted is not None and not counted.any():
            raise ValueError(
                "sample_weight, class_weight and the criterion must give at least one training sample and one sample "
                "that train_split holds out a weight other than 0; all weights are 0."
            )

    def _check_sizes(self, n_samples: int) -> None:
        """Check the batch sizes of all epochs before the first one, as far as they are known."""
        for epoch in range(1 if self.regime.adaptive else self.max_epochs):
            self._check_size(self.regime.batch_size(epoch, n_samples), epoch, n_samples)

    def rows_at_once(self, n_samples: int) -> int:
        """Return the number of samples evaluated at once in the largest batch that is known before the training."""
        epochs = range(1 if self.regime.adaptive else self.max_epochs)
        sizes = [self._check_size(self.regime.batch_size(epoch, n_samples), epoch, n_samples) for epoch in epochs]
        return self._seen_at_once(max(sizes))

    def _settle_compiled(self, n_samples: int) -> bool:
        """Return whether the training has few enough batch sizes to compile code for each of them."""
        if self.torch_compile_options is None:
            return True
        remedy = self._differentiated_by()
        if remedy is not None:
            warnings.warn(
                f"compile: the net is trained without torch.compile, because {type(remedy).__name__} transforms the "
                "loss and compiled code has only one backward pass. If the remedy itself takes no gradients, set "
                "compiles = True in its class.",
                CompileWarning,
                stacklevel=2,
            )
            return False
        if self.torch_compile_options["dynamic"] is not False:
            return True
        sizes = {self.regime.batch_size(i, n_samples) for i in range(1 if self.regime.adaptive else self.max_epochs)}
        if len(sizes) <= MAX_SIZES and not self.regime.adaptive:
            return True
        warnings.warn(
            f"compile: the net is trained without torch.compile, because batch_regime has more than {MAX_SIZES} batch "
            "sizes, or does not know them before the training. compile__dynamic=True compiles one code for all batch "
            "sizes.",
            CompileWarning,
            stacklevel=2,
        )
        return False

    def _differentiated_by(self) -> Remedy | None:
        """Return a remedy that may take gradients of the loss, as a gradient penalty does; None without one."""
        for remedy in self.remedies:
            if type(remedy).transform_loss is not Remedy.transform_loss and not remedy.compiles:
                return remedy
        return None

    def _check_size(self, size: Any, epoch: int, n_samples: int) -> int:
        if isinstance(size, bool) or not isinstance(size, numbers.Integral) or not 1 <= int(size) <= n_samples:
            raise ValueError(
                f"batch_regime must return integers from 1 to {n_samples}; got {size!r} for epoch {epoch}."
            )
        if self._seen_at_once(min(int(size), n_samples)) == 1 and batch_norm_layers(self.module_):
            raise ValueError("A net with batch normalisation needs batches of at least 2 samples; got batches of 1.")
        return int(size)

    def _seen_at_once(self, size: int) -> int:
        """Return the number of samples of a batch that batch norm normalises together."""
        size = min([size, *(remedy.sub_batch_size or size for remedy in self.remedies)])
        return min(largest_share(size) if self.data_parallel else size, self.micro_batch_size or size)

    def _check_ghosts(self, n_samples: int) -> None:
        """Raise a ValueError if ghost batch norm would be plain batch norm in the whole training."""
        if self.ghost_batch_size is None or not batch_norm_layers(self.module_):
            return
        # An adaptive regime, more epochs than max_epochs, or the next warm start may reach larger batches.
        grows = self.regime.adaptive or (self.regime.varies and (self.regime_adaptation or self.warm_start))
        sizes = [n_samples] if grows else [self.regime.batch_size(i, n_samples) for i in range(self.max_epochs)]
        largest = self._seen_at_once(max(sizes))
        if largest < self.ghost_batch_size:
            raise ValueError(
                f"ghost_batch_size must be at most the largest batch that batch norm sees, {largest} samples; got "
                f"{self.ghost_batch_size}."
            )

    def _batch_size_of(self, epoch: int) -> int:
        """Return the batch size of an epoch, from the schedule or from the record of the previous epoch."""
        if not (self.regime.adaptive and epoch):
            return self.regime.batch_size(epoch, self.n_samples_)
        size = self.regime.next_batch_size(self.history[epoch - 1], self.n_samples_)
        return self._check_size(size, epoch, self.n_samples_)

    def _settle_budget(self, n_samples: int) -> None:
        """Set all that depends on the number of training samples, which a train split makes smaller than the data."""
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
        """Return the training samples, only once: all of X without a train split."""
        tensors, self.trained_on_ = getattr(self, "trained_on_", None), None
        return (X, y) if tensors is None else tensors

    def adopt(self, other: "TrainingNet") -> None:
        """Continue with the parameters of ``other``, for a warm start."""
        if other.lr != self.lr:
            groups = self.get_params_for_optimizer("optimizer", self.get_all_learnable_params())[0][0]
            set_learning_rate(self.optimizer_, other.lr, groups)
        for name in ADOPTED:
            setattr(self, name, getattr(other, name))
        rule = dict(self.callbacks_)["stopping_rule"]
        rule.tol, rule.n_iter_no_change, rule.target_loss = self.stopping
        self._build_step()

    # -- the loop --------------------------------------------------------------------------------------------------

    def fit_loop(self, X: Any, y: Any = None, epochs: int | None = None, **kwargs: Any) -> "TrainingNet":
        """Train, and restore the global random state afterwards."""
        if not hasattr(self, "step_"):  # unpickled
            self._build_step()
        resumes = self.checkpoint_ is not None  # a saved fit starts from the initial weights
        self.updates_before_ = 0 if resumes else self.n_updates_
        if epochs is None:
            epochs = self.max_epochs - (len(self.history) if resumes else 0)
            epochs = sys.maxsize if self.regime_adaptation else epochs  # the number of updates ends the training
        self.interrupted_ = False
        try:
            with seeded(self.seed, torch.device(self.device)):
                super().fit_loop(X, y, epochs=epochs, **kwargs)
        except StopTraining:
            pass
        except KeyboardInterrupt:
            self.interrupted_ = True  # skorch is about to suppress the interrupt
            raise
        return self

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call the callbacks. A KeyboardInterrupt that one raises at the end of an epoch is skorch's early stopping."""
        if "batch" in kwargs:
            kwargs["batch"] = pair_of(kwargs["batch"])
            super().notify(method_name, **kwargs)
            return
        if method_name == "on_train_end":
            self._notify_end(**kwargs)
            return
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

    def _notify_end(self, **kwargs: Any) -> None:
        """Call every callback, even after one has failed, because the finished training must not be lost."""
        self.ending_error_ = None
        callbacks = sorted((callback for _, callback in self.callbacks_), key=lambda c: not hasattr(c, "ends_first"))
        for hooks in (self, *callbacks):
            try:
                hooks.on_train_end(self, **kwargs)
            except BaseException as error:  # this includes Ctrl-C; the other callbacks are still called
                self.ending_error_ = self.ending_error_ or error
        if self.ending_error_ is not None:
            raise self.ending_error_

    def run_single_epoch(self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any) -> None:
        """Run over the batches. The optimiser is in evaluation mode afterwards."""
        if not training:
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            return
        with updating(self):
            self._begin_epoch(iterator)
            if self.own_batches_:
                self._run_batches(iterator, prefix, step_fn)
            else:
                super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def _run_batches(self, iterator: Any, prefix: str, step_fn: Any) -> None:
        """Run over the batches without a host sync per batch. The recorder writes the history at the end."""
        count = 0
        begin, end = self._hooks("on_batch_begin"), self._hooks("on_batch_end")
        if not dict(self.callbacks_)["epoch_recorder"].writes_batches_:
            # skorch's own hook adds a record of the batch to the history
            begin = [hook for hook in begin if hook != self.on_batch_begin]
        for count, batch in enumerate(iterator, start=1):  # noqa: B007 - the record below needs the count
            pair = pair_of(batch)
            for hook in begin:
                hook(self, batch=pair, training=True)
            step = step_fn(batch)
            for hook in end:
                hook(self, batch=pair, training=True, **step)
        if not any(self.history[-1]["batches"]):
            self.history[-1]["batches"] = []  # skorch adds a record for every batch, and no callback wrote into these
        self.history.record(prefix + "_batch_count", count)
        self._measure_gradients(iterator)

    def _hooks(self, name: str) -> list[Any]:
        """Return the methods of this name that do something, of the net and of its callbacks, in skorch's order."""
        idle = [getattr(Callback, name)]
        if name != "on_batch_begin":  # for which skorch's net adds a record to the history
            idle.append(getattr(NeuralNetClassifier, name))
        found = [getattr(one, name) for one in (self, *(callback for _, callback in self.callbacks_))]
        return [hook for hook in found if getattr(hook, "__func__", hook) not in idle]

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Make one update with the training step."""
        X, y, weight = unpacked(batch)
        if not self.own_batches_:
            X, y = to_tensor(X, device=self.device), to_tensor(y, device=self.device)
            weight = None if weight is None else weight.to(self.device)
        X = in_dtype(X, self.dtype_)
        if not self.module_.training:
            self._set_training(True)
        if self.trained_ != [p.requires_grad for p in self.watched_]:
            self._build_step()  # a callback has frozen or unfrozen parameters
        if not self.step_.params:
            raise ValueError(
                "net must have at least one trainable parameter; all parameters are frozen (requires_grad=False)."
            )
        number = self.n_updates_ // self.step_.inner_steps
        self.n_updates_ += self.step_.inner_steps
        if self.lr_schedule.follows_progress:
            self._set_lr_factor()
        self.progress_[1] += 1
        with arithmetic(self.precision), scaled_step(self.optimizer_, self.lr_factor_, self.moments_ratio_):
            return self.step_(Batch(X, y, weight, number=number))

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Return loss and outputs of a validation batch, and ``mass`` if samples have different weights."""
        step = super().validation_step(pair_of(batch), **fit_params)
        _, y, weight = unpacked(batch)
        loss = self.row_loss()
        y_pred, y = step["y_pred"], to_tensor(y, device=self.device)
        weight = None if weight is None else weight.to(self.device)
        counted = loss.weights(y, weight, y_pred.dtype)
        if counted is None:
            return step
        with torch.no_grad():
            return {**step, "loss": loss.weighted(y_pred, y, weight)[0], "mass": counted.sum()}

    def evaluation_step(self, batch: Any, training: bool = False) -> Any:
        """Return the outputs for a batch, for predictions."""
        return super().evaluation_step(pair_of(batch), training)

    def _begin_epoch(self, iterator: Any) -> None:
        """Set all that depends on the epoch: order of the samples, random streams, batch size, learning rate."""
        epoch = len(self.history) - 1
        seed_generators(derive_seed(self.seed, 2, epoch), torch.device(self.device))
        self.step_.rng.manual_seed(derive_seed(self.seed, 3, epoch))
        self._set_training(True)
        self._check_hooks()  # a callback may have registered one
        self.step_.on_grad = self._notify_grad if self._hooks("on_grad_computed") else None
        self.size_ = size = self._batch_size_of(epoch)
        if self.step_.loss_fn.compiled is not None:
            self.step_.loss_fn.compiled.sizes = {size, self._seen_at_once(size)} if self.compiles_ else set()
        self.epoch_batch_size_: int | None = None
        self.own_batches_ = hasattr(iterator, "set_epoch")
        if self.own_batches_:
            iterator.set_epoch(epoch, batches_before=self.n_updates_ // self.step_.inner_steps)
            self.epoch_batch_size_ = size
        self.progress_ = self._progress(epoch, iterator)
        self._set_lr_factor()
        self.moments_ratio_ = 1.0
        if self.lr_schedule.scaling == "sde":
            check_moments(self.optimizer_, size, self.base_batch_size_)
            self.moments_ratio_ = size / self.base_batch_size_

    def _progress(self, epoch: int, iterator: Any) -> list[int]:
        """Return [epochs done, batches done since, batches of an epoch], with epochs counted as in the parameters."""
        if self.regime_adaptation:
            before = sum(row["train_batch_count"] for row in self.history[:epoch])
            return [0, before, n_batches(self.n_samples_, self.base_batch_size_)]
        return [epoch, 0, len(iterator) if hasattr(iterator, "__len__") else n_batches(self.n_samples_, self.size_)]

    def _set_lr_factor(self) -> None:
        whole, batches, per_epoch = self.progress_
        self.lr_factor_ = self.lr_schedule.factor(whole + batches / per_epoch, self.size_, self.base_batch_size_)

    def _measure_gradients(self, loader: ResidentLoader) -> None:
        """Record the variance of the gradients of mini-batches at the current weights, if the regime asks for it."""
        wanted = self.regime.measured_batches(self.size_, self.n_samples_)
        if wanted:
            seed = derive_seed(self.seed, 4, len(self.history) - 1)
            with arithmetic(self.precision):
                found = measure_gradients(self.step_, loader, wanted, self.size_, seed)
            for name, value in found.items():
                self.history.record(name, value)

    def load_params(self, *args: Any, **kwargs: Any) -> None:
        """Load saved parameters, and with a history also its number of updates."""
        history = self.history
        super().load_params(*args, **kwargs)
        if self.history is not history and self.history:
            self.n_updates_ = self.history[-1].get("n_updates", self.n_updates_)

    def predict(self, X: Any) -> np.ndarray:
        """Return class numbers, and -1 for samples without a class, because their largest output is not finite.

        Validation scores during a training that diverges then count these samples as wrong.
        """
        probabilities = self.predict_proba(X)
        found: np.ndarray = np.where(np.isfinite(probabilities.max(axis=1)), probabilities.argmax(axis=1), -1)
        return found

    # -- measuring -------------------------------------------------------------------------------------------------

    def objective_parts(self, X: Any, y: Any, *, checked: bool = False) -> tuple[nn.Module, RowLoss, Any, Any]:
        """Return the parts that `check_objective` measures, also during training. X and y are those of the estimator.

        ``checked`` says that the samples are known to be finite and in float32.
        """
        if not hasattr(self, "encoding_"):
            raise NotFittedError("This TrainingNet is not fitted yet; call 'fit' of its estimator first.")
        if is_stream(X):
            return self.module_, own_loss(self), Prepared(X, self.encoding_.encode_batch), None
        rows, target = (self.encoding_.encode_checked if checked else self.encoding_.encode)(X, y)
        return self.module_, own_loss(self), rows if issparse(rows) else as_tensor(rows), as_tensor(target)

    # -- pickling --------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the step, which holds the same tensors a second time; ``fit_loop`` builds a new one.

        Skorch stores the module as bytes, which can be read on a machine without its device. These bytes cannot hold a
        class that is defined in a function, and other processes do not find one that is defined in a script. joblib's
        bytes hold both.
        """
        try:
            state = super().__getstate__()
            is_importable = b"__main__" not in state[_BYTES]
        except (pickle.PicklingError, AttributeError, TypeError):
            is_importable = False
        if not is_importable:
            state = vars(self).copy()
            on_device = tuple(self.cuda_dependent_attributes_)
            held = {name: state.pop(name) for name in vars(self) if name.startswith(on_device)}
            state[_BYTES] = pickle.dumps(wrap_non_picklable_objects(held, keep_wrapper=False))
        for name in ("step_", "watched_", "trained_on_"):
            state.pop(name, None)
        state["checkpoint_"] = None
        hooked = hooked_parameter(self.module_) if hasattr(self, "module_") else None
        if hooked is not None:
            state["lost_hook_"] = hooked
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the attributes of the optimiser that torch's pickles leave out, as LBFGS and LARS have them."""
        super().__setstate__(state)
        if hasattr(self, "optimizer_"):
            kept = self.optimizer_.state_dict()
            super().initialize_optimizer()
            self.optimizer_.load_state_dict(kept)
