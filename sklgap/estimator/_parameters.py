"""Build the training net from the parameters of `LBGapClassifier`. ``fit`` resolves all shorthands here, once."""

import contextlib
import inspect
import numbers
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import nn

from sklgap._checks import (
    WrongArgument,
    check_flag,
    check_integer,
    check_positive,
    check_verbose,
    given_to,
    is_integer,
    is_number,
    shown,
)
from sklgap.estimator._nested_parameters import check_nested, suggestion
from sklgap.estimator._sample_weights import criterion_weight
from sklgap.estimator._threads import check_n_threads, multiply_adds
from sklgap.nets._check import check_init, check_input_shape, check_net, net_arguments
from sklgap.objective._autodiff import check_gradients_allowed, check_no_autocast
from sklgap.objective._batch_norm import batch_norm_layers
from sklgap.objective._compile import check_compile
from sklgap.objective._copy import check_plain, convert, deepcopy, uncompiled
from sklgap.objective._gradient_hooks import check_no_gradient_hooks
from sklgap.objective._outputs import logits_of
from sklgap.objective._parameters import trainable_parameters
from sklgap.regimes import (
    ConstantBatch,
    check_batch_regime,
    check_batch_size,
    check_lr_scaling,
    check_lr_schedule,
    default_base_batch_size,
)
from sklgap.remedies import (
    BatchAugmentation,
    Proximal,
    Remedy,
    check_augmentation,
    check_remedies,
    check_together,
)
from sklgap.remedies._check import check_parts
from sklgap.training import TrainingNet
from sklgap.training._data_parallel import agreed_seed
from sklgap.training._dtypes import check_precision, in_dtype
from sklgap.training._encoding import NOT_SPARSE
from sklgap.training._placement import default_device
from sklgap.training._precision import check_training_precision
from sklgap.training._random import seeded

# Arguments of a DataLoader that decide the order of the samples.
ORDER = ("shuffle", "sampler", "batch_sampler")


def make_net(model: Any, X: Any, n_classes: int, class_weight: np.ndarray | None = None) -> TrainingNet:
    """Return the net that ``model`` describes, for these data (an array or a CSR matrix), not yet initialised.

    ``class_weight`` holds the weights of ``model.class_weight``, by class number.
    """
    check_gradients_allowed()
    check_no_autocast()
    _check_numbers(model)
    if issparse(X) and model.data_parallel:
        raise TypeError(NOT_SPARSE.format("beside data_parallel=True"))
    n_samples = X.shape[0]
    extra = _own({name: value for name, value in model._nested.items() if not _is_of_compile(name)})
    if "criterion__weight" in extra:
        extra["criterion__weight"] = criterion_weight(extra["criterion__weight"], model.criterion, n_classes)
    given = model.net
    module = copy_of_instance(check_plain(given, "net")) if isinstance(given, nn.Module) else check_net(given)
    init = check_init(model.init)
    regime = _regime(model, n_samples)
    device = check_device(model.device)
    seed = agreed_seed(_seed(model.random_state), X, device) if model.data_parallel else _seed(model.random_state)
    if any(name.startswith(("iterator_train", "dataset")) for name in extra):
        if regime.varies or model.regime_adaptation:
            raise ValueError(
                "batch_regime must be constant, and regime_adaptation False, with your own iterator_train or dataset."
            )
        if not {"iterator_train", *(f"iterator_train__{key}" for key in ORDER)} & extra.keys():
            extra["iterator_train__shuffle"] = True
    net = TrainingNet(
        module,
        criterion=model.criterion,
        optimizer=model.optimizer,
        lr=model.lr,
        max_epochs=model.max_epochs,
        batch_size=regime.batch_size(0, n_samples),
        train_split=_train_split(model.train_split, seed),
        callbacks=_copied("callbacks", model.callbacks),
        verbose=model.verbose,
        warm_start=model.warm_start,
        device=device,
        regime=regime,
        remedies=_remedies(model, X),
        init=None if isinstance(model.net, nn.Module) else _own(init),
        ghost_batch_size=model.ghost_batch_size,
        micro_batch_size=model.micro_batch_size,
        lr_schedule=check_lr_schedule(model.lr_scaling, model.lr_warmup_epochs, model.lr_milestones, model.lr_decay),
        base_batch_size=model.base_batch_size,
        regime_adaptation=model.regime_adaptation,
        stopping=(model.tol, model.n_iter_no_change, model.target_loss),
        seed=seed,
        data_parallel=bool(model.data_parallel),
        precision=check_training_precision(model.precision, device),
        class_weight=class_weight,
        torch_compile_options=compile_options(model),
        **_module_arguments(model, module, X, n_classes),
        **extra,
    )
    _check_nested_names(net, model, module)
    return net


def compile_options(model: Any) -> dict[str, Any] | None:
    """Return the options of ``torch.compile``; None if nothing is compiled."""
    given = {name.removeprefix("compile__"): value for name, value in model._nested.items() if _is_of_compile(name)}
    target: Any = partial(torch.compile, None)
    target.__name__ = "torch.compile"  # for the error
    check_nested("compile", target, given)
    if isinstance(model.compile, Mapping):  # as an Objective takes them
        raise WrongArgument(
            f"compile must be True or False; got {shown(model.compile)}. Give options as compile__backend and so on."
        )
    check_flag("compile", model.compile)
    return check_compile(given) if model.compile else None


def _is_of_compile(name: str) -> bool:
    return name.startswith("compile__")


def copy_of_instance(net: nn.Module) -> nn.Module:
    """Return a deep copy of the user's module; raise a ValueError if the copy would train in another way."""
    check_no_gradient_hooks(net, "net", "register it in the __init__ of the module, and pass its class as net")
    trainable_parameters(net, owner="net")  # a copy would separate parameters that share memory
    return deepcopy(net)


def _own(value: Any) -> Any:
    """Return a copy that the fit may change, or the value itself if it cannot be copied."""
    try:
        return deepcopy(value)
    except Exception:  # copying runs the user's code
        return value


def check_fit(net: TrainingNet, X: torch.Tensor, n_classes: int) -> tuple[torch.dtype, int]:
    """Check on two samples, before training, that net, criterion and callbacks fit the data and each other.

    Returns the dtype for predictions (float64, or float32 for a module that creates tensors in that dtype), and the
    multiply-adds of the net for one sample.
    """
    dtype = check_precision(net.module_)
    module = deepcopy(net.module_).cpu().eval()
    with torch.no_grad(), seeded(net.seed, torch.device("cpu")):
        outputs = _check_outputs(module, in_dtype(X, dtype), n_classes)
        work = multiply_adds(module, in_dtype(X, dtype))
    if isinstance(net.criterion_, nn.NLLLoss) and outputs.isfinite().all() and not _are_probabilities(outputs):
        raise ValueError(
            "net must return probabilities for criterion=NLLLoss, because skorch takes their logarithm itself. Return "
            "logits and use CrossEntropyLoss, or replace LogSoftmax at the end of the net by Softmax."
        )
    given = net.get_params_for("criterion")
    try:
        # There are more samples than classes, so that a loss without class numbers does not fit by broadcasting.
        outputs = outputs.repeat(n_classes, 1).to(net.device)
        target = torch.arange(len(outputs), device=net.device) % n_classes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss = net.criterion_loss().mean(outputs, target)
        mean = getattr(net.criterion_, "reduction", "mean") == "mean" and loss.ndim == 0
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        names = ", ".join(f"criterion__{name}" for name in given)
        blamed = f" and {names} must fit it" if names else ""
        raise ValueError(f"criterion must take (outputs, class numbers){blamed}; it raised: {error}") from error
    if mean and given and outputs.isfinite().all() and not loss.isfinite():
        names = ", ".join(f"criterion__{name}" for name in given)
        raise ValueError(f"{names} must give a finite loss; the loss of the initial weights is {float(loss)}.")
    if not mean:
        raise ValueError("criterion must return the mean loss of the samples; got another reduction.")
    _try_optimizer(net, module)
    listed = [item[0] for item in net.callbacks or () if isinstance(item, tuple)]  # also those turned off by None
    known = [*listed, *(name for name, _ in net.callbacks_ if name not in listed)]
    for name in net.get_params_for("callbacks"):
        if name.split("__")[0] not in known:
            raise TypeError(f"callbacks__{name} does not name one of the callbacks {known}{suggestion(name, known)}")
    try:
        with torch.no_grad(), seeded(net.seed, torch.device("cpu")):
            uncompiled(convert(module, torch.device("cpu"), torch.float64))(X.double())
    except RuntimeError:
        return torch.float32, work
    return torch.float64, work


def _try_optimizer(net: TrainingNet, module: nn.Module) -> None:
    """Make a step on a copy with the user's optimiser arguments, because some mistakes show only then."""
    given = net.get_params_for("optimizer")
    given.pop("lr", None)
    if not given or any(name.startswith("param_groups") for name in given):
        return
    params = [p for p in deepcopy(module).parameters() if p.requires_grad]
    for p in params:
        p.grad = torch.ones_like(p)
    with given_to("optimizer", net.optimizer, given), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.optimizer(params, lr=net.lr, **given).step(lambda: torch.zeros(()))


def _check_outputs(module: nn.Module, X: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Return the outputs for two samples, checked: one per class, repeatable, independent of other samples."""
    # An instance-norm layer without statistics does not count as batch norm.
    if any(layer.running_mean is None for layer in batch_norm_layers(module).values()):
        raise ValueError(
            "net must have batch normalisation with running statistics (track_running_stats=True). Otherwise the "
            "prediction for a sample would depend on the other samples of the call."
        )
    before = torch.get_rng_state()
    try:
        X = X.clone()
        first, version = module(X), X._version
        second = module(X)
    except Exception as error:  # a user's module may raise anything
        raise ValueError(f"net must take samples of shape {tuple(X.shape[1:])}; the module raised: {error}") from error
    if version:
        raise ValueError(
            "net must not write into its inputs, because they are samples of X. Use inplace=False in its first layer, "
            "or begin the forward pass with X = X.clone()."
        )
    try:
        outputs, again = logits_of(first), logits_of(second)
    except TypeError as error:
        raise ValueError(f"net must return {n_classes} outputs, one per class: {error}") from error
    if outputs.shape != (len(X), n_classes):
        raise ValueError(f"net must return {n_classes} outputs, one per class; got {tuple(outputs.shape[1:])}.")
    repeatable = torch.allclose(outputs, again, equal_nan=True)
    if repeatable and not torch.equal(before, torch.get_rng_state()):
        # The net draws random numbers. A dropout with a small rate may not have changed the two samples.
        many = X[:1].expand(64, *X.shape[1:])
        repeatable = torch.allclose(logits_of(module(many)), outputs[:1], rtol=1e-3, atol=1e-5, equal_nan=True)
    if not repeatable:
        raise ValueError(
            "net must return the same outputs for the same samples in evaluation mode, because its predictions must "
            "not be random. Pass training=self.training to functional dropout."
        )
    alone = logits_of(module(torch.cat([X[:1], X[:1]])))[:1]
    if not torch.allclose(alone, outputs[:1], rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ValueError(
            "net must evaluate every sample by itself in evaluation mode, but the output for a sample changes with the "
            "other samples. Do not use a mean, softmax or normalisation over the batch (dim 0) in evaluation mode."
        )
    return outputs


def _are_probabilities(outputs: torch.Tensor) -> bool:
    return bool((outputs >= 0).all()) and bool(((outputs.sum(dim=1) - 1).abs() < 1e-3).all())


def net_shape(model: Any, X: Any) -> tuple[int, ...]:
    """Return the shape of a sample in the form that the net takes."""
    net = check_net(model.net) if isinstance(model.net, str) else model.net
    takes_images = getattr(net, "takes_images", model.input_shape is not None)
    shape = check_input_shape(model.input_shape, X.shape, needed=takes_images)
    return shape if takes_images and shape is not None else X.shape[1:]


def deterministic(on: bool) -> contextlib.AbstractContextManager[Any]:
    """Make cuDNN use algorithms that are repeatable bit for bit; this has no effect without a GPU."""
    if on and torch.cuda.is_available():
        tf32 = torch.backends.cudnn.allow_tf32
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32)
    return contextlib.nullcontext()


def _module_arguments(model: Any, module: Any, X: Any, n_classes: int) -> dict[str, Any]:
    if isinstance(module, nn.Module) or not hasattr(module, "takes_images"):
        return {}
    shape = net_shape(model, X)
    takes = inspect.signature(module).parameters  # a user's subclass may have fixed its sizes
    sizes = net_arguments(module, int(np.prod(shape)), n_classes, shape)
    arguments = {name: size for name, size in sizes.items() if name in takes}
    clash = [name for name in arguments if f"module__{name}" in model._nested]
    if clash:
        raise ValueError(f"module__{clash[0]} cannot be set for a net of the papers, because it comes from the data.")
    return {f"module__{name}": value for name, value in arguments.items()}


def _check_nested_names(net: TrainingNet, model: Any, module: Any) -> None:
    targets = {
        "module": type(module) if isinstance(module, nn.Module) else module,
        "criterion": model.criterion,
        "optimizer": model.optimizer,
        "iterator_train": net.iterator_train,
        "iterator_valid": net.iterator_valid,
    }
    for prefix, target in targets.items():
        if callable(target):
            check_nested(prefix, target, net.get_params_for(prefix))


def _copied(name: str, value: Any) -> Any:
    """Return a deep copy; raise a ValueError if an object in it, such as a generator, cannot be copied."""
    try:
        return deepcopy(value)
    except Exception as error:  # copying runs the user's code
        raise WrongArgument(f"{name} must be an object that can be copied: {error}") from error


def _regime(model: Any, n_samples: int) -> Any:
    regime = _copied("batch_regime", check_batch_regime(model.batch_regime, n_samples))
    if model.batch_size is not None:
        check_batch_size(model.batch_size, n_samples)
        if regime.varies:
            raise ValueError(
                f"batch_size must be None with a batch_regime that varies, {regime!r}; got {shown(model.batch_size)}."
            )
        regime = ConstantBatch(model.batch_size)
    if check_lr_scaling(model.lr_scaling) == "sde" and regime.varies:
        raise ValueError(
            "batch_regime must be constant with lr_scaling='sde', because its betas belong to one batch size; got "
            f"{regime!r}. Use lr_scaling='sqrt'."
        )
    asked = model.batch_regime if model.batch_size is None else model.batch_size
    if isinstance(asked, numbers.Integral) and int(asked) > n_samples:
        warnings.warn(
            f"batch_size={asked} is larger than the data, so every batch holds all {n_samples} samples.",
            UserWarning,
            stacklevel=4,
        )
    regime.batch_size(0, n_samples)
    return regime


def _remedies(model: Any, X: Any) -> tuple[Remedy, ...]:
    base = default_base_batch_size(X.shape[0]) if model.base_batch_size is None else model.base_batch_size

    def ready(remedy: Any) -> Remedy | None:
        if getattr(remedy, "base_batch_size", base) is None:
            remedy = _copied("remedies", remedy).set_params(base_batch_size=base)
        if isinstance(remedy, BatchAugmentation):
            return remedy.for_images(image_shape, row_shape=net_shape(model, X))
        return check_augmentation(remedy, image_shape, row_shape=net_shape(model, X))

    def image_shape() -> tuple[int, ...]:
        if issparse(X):
            raise TypeError(NOT_SPARSE.format("for an augmentation"))
        shape = check_input_shape(model.input_shape, X.shape, needed=True)
        assert shape is not None
        return shape

    given = [remedy for _, remedy in check_remedies(model.remedies)]
    check_together(given)
    found = [ready(remedy) for remedy in (model.augmentation, *given)]
    remedies = [remedy for remedy in found if remedy is not None]
    if model.proximal_lambda is not None:
        remedies.append(Proximal(model.proximal_lambda, model.proximal_steps))
    for remedy in remedies:
        remedy.check()
    check_together(remedies)
    check_parts(remedies, model.micro_batch_size, bool(model.data_parallel))
    return tuple(_copied("remedies", remedies))


def check_device(device: str) -> str:
    """Return the device of the parameter; raise a ValueError if the machine does not have it."""
    if isinstance(device, str) and device == "auto":
        return default_device()
    try:
        if not isinstance(device, str | torch.device):
            raise TypeError("a device is a text")
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device must be 'auto' or a torch device such as 'cpu' or 'cuda'; got {shown(device)}."
        ) from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(kind, True):
        raise ValueError(f"device={device!r} is not available on this machine; use 'auto' or 'cpu'.")
    return str(device)


def _seed(random_state: int | np.random.RandomState | None) -> int:
    """Return the integer that seeds all random numbers of a fit. It never comes from NumPy's global state."""
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if is_integer(random_state, 0):
        if int(random_state) >= 2**63:
            raise ValueError(f"random_state must be below 2**63; got {random_state}.")
        return int(random_state)
    raise ValueError(
        f"random_state must be None, an integer of at least 0 or a RandomState; got {shown(random_state)}."
    )


def _train_split(split: Any, seed: int) -> Any:
    """Return a copy of the split. A random split of skorch without a seed gets the seed of the fit."""
    split = deepcopy(split)
    if getattr(split, "random_state", seed) is None and isinstance(getattr(split, "cv", None), float):
        split.random_state = seed % 2**32
    return split


def _check_numbers(model: Any) -> None:
    """Check the parameters that are plain numbers or flags."""
    for name in ("max_epochs", "n_iter_no_change", "proximal_steps"):
        check_integer(name, getattr(model, name))
    for name in ("base_batch_size", "ghost_batch_size", "micro_batch_size"):
        check_integer(name, getattr(model, name), least=2 if name == "ghost_batch_size" else 1, or_none=True)
    check_n_threads(model.n_threads)
    check_positive("lr", model.lr)
    check_verbose(model.verbose)
    for name in ("tol", "target_loss"):
        value = getattr(model, name)
        if value is not None and (not is_number(value, finite=False) or not value >= 0):
            raise ValueError(f"{name} must be None or a number of at least 0; got {shown(value)}.")
    for name in ("regime_adaptation", "recompute_batch_norm", "data_parallel", "warm_start"):
        check_flag(name, getattr(model, name))
    if model.train_split is not None and not callable(model.train_split):
        raise ValueError(f"train_split must be None or a callable such as ValidSplit; got {shown(model.train_split)}.")
    if model.callbacks is not None and not (
        isinstance(model.callbacks, list | tuple) and all(_is_callback(item) for item in model.callbacks)
    ):
        raise ValueError(f"callbacks must be None or a list of skorch callbacks; got {shown(model.callbacks)}.")
    for name, example in (("optimizer", "torch.optim.SGD"), ("criterion", "torch.nn.CrossEntropyLoss")):
        if not callable(getattr(model, name)):
            raise ValueError(f"{name} must be a class of torch, such as {example}; got {shown(getattr(model, name))}.")


def _is_callback(item: Any) -> bool:
    """Return whether the item is a callback, a callback class, or a pair (name, callback), as skorch accepts them."""
    item = item[1] if isinstance(item, tuple) and len(item) == 2 else item
    return callable(getattr(item, "on_epoch_end", None))
