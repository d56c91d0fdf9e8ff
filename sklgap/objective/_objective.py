"""The loss surface as an object to measure: f(theta) = mean_i loss(net_theta(x_i), y_i) over fixed data."""

import contextlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sklgap._checks import WrongArgument, check_arguments, check_integer, check_module, shown
from sklgap._random import undisturbed
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, Aux, Batch, BatchNormPolicy, Criterion, Inputs, Params
from sklgap.objective import _batch_norm
from sklgap.objective._autodiff import (
    check_gradients_allowed,
    check_no_autocast,
    gradient_of,
    gradients_of,
    hessian_operator,
    hessian_vector_product,
    pulled_back,
    row_gradient_norms,
)
from sklgap.objective._compile import CompiledCalls, Options, check_compile
from sklgap.objective._copy import check_plain, convert, deepcopy, lazy_parameters, private_copy
from sklgap.objective._data import CHUNK_SIZE, ArrayData, Data, Rows, rows_of
from sklgap.objective._loss import ModuleLoss, call_module, is_classification, predicted_right
from sklgap.objective._memory_format import channels_last, takes_channels_last
from sklgap.objective._nested import map_tensors
from sklgap.objective._parameters import Patterns, flatten, leaves_of, trainable_parameters, unflatten
from sklgap.objective._restricted import RestrictedObjective
from sklgap.objective._row_loss import NO_TERMS, RowLoss, row_loss
from sklgap.objective._second_derivatives import check_second_derivatives, differentiable_twice
from sklgap.objective._stream import StreamData, is_stream, stream_data
from sklgap.objective._trial import (
    Limits,
    explained,
    try_argument,
    try_gradient,
    try_loss,
    try_mean_of_batch,
    try_module,
    try_parts,
    try_whole_batch,
)

if TYPE_CHECKING:
    from sklgap.objective._subspace import Subspace

Vector = Tensor | np.ndarray

# Gradients of single samples are held in blocks of at most this many numbers (32 MB in float32, about the cache of a
# processor) and this many samples.
_NUMBERS_AT_ONCE = 2**23
_ROWS_AT_ONCE = 256


class Evaluation(NamedTuple):
    """Mean loss, and accuracy as a fraction (NaN if the outputs are not one score per class)."""

    loss: float
    accuracy: float


class Objective:
    r"""The mean loss of a module on fixed data as a function of its parameters.

    .. math:: f(\theta) = \frac{1}{n} \sum_{i=1}^n \ell(\mathrm{net}_\theta(x_i), y_i)

    The package makes all its measurements (sharpness, curvature, loss along a line) on such an object. The given module
    is copied and never modified: its weights, buffers, ``.grad`` and train/eval mode stay as they are, and so does the
    global random state. Dropout is always off.

    Parameters
    ----------
    module : torch.nn.Module
        Maps the inputs to the outputs that the criterion takes: a tensor, a tuple whose first element is a tensor, or a
        dict or an object with ``logits``. ``theta`` holds the parameters with ``requires_grad=True``, in the order of
        ``module.named_parameters()``. A complex number counts as its real and imaginary part. Frozen parameters are
        constants.
    criterion : torch.nn.Module or callable
        Maps (y_pred, y) to the mean loss of the samples. A torch loss module is copied and evaluated in float64 on the
        outputs, so that small losses do not lose digits. Any other callable is called as it is. A module with
        ``reduction="sum"`` or ``"none"`` is refused. Class weights and ``ignore_index`` are exact: the weighted sum of
        losses over all data is divided by the sum of the weights over all data.

        It can also be a function ``loss(module, batch)`` whose first argument is named ``module`` or ``model``. Such a
        function takes whatever a loader yields. It returns the mean loss of the batch, or a pair (mean loss, weight of
        the batch) if the weight of a batch is not its number of samples, such as (mean over tokens, number of tokens).
    data : tuple (X, y), torch.utils.data.Dataset or torch.utils.data.DataLoader
        X has the shape (n_samples, ...). It can also be a tuple or dict of such arrays for ``module(*X)`` or
        ``module(**X)``, or a sparse matrix, which becomes dense chunk by chunk. y has the shape (n_samples, ...). A
        Dataset is cut into chunks and loaded when it is needed. The batches of a DataLoader are the chunks. Each batch
        of a Dataset or a DataLoader is (inputs, target), or a dict with ``"labels"``.
    batch_norm : {"batch", "population", "running"}, default="batch"
        ``"batch"`` uses batch statistics over fixed chunks of the data, which is the choice of the paper.
        ``"population"`` uses statistics recomputed over the whole data set at the measured point. ``"running"`` uses
        the running buffers of the module. See Notes.
    chunk_size : int, default=5000
        Number of samples that are evaluated at once; 5,000 is the number in the released code of the paper. The data
        are cut into ceil(n_samples / chunk_size) chunks that differ by at most one sample. The chunks are weighted
        exactly. A fixed permutation draws them, because samples sorted by class would make one-class chunks, whose
        batch statistics are meaningless.
    dtype : torch.dtype, default=None
        ``torch.float32`` or ``torch.float64``, the type of parameters and data. None takes the type of the module's
        parameters. Sums over chunks are accumulated in float64 in either case.
    device : str or torch.device, default=None
        Device of the measurement. None takes the device of the module. Arrays are moved there once. A Dataset or a
        DataLoader is moved chunk by chunk.
    parameters : str or list of str, default=None
        Patterns of parameter names, in the style of file names (``"encoder.*"``). Only parameters that match are
        measured, and the others are constants. None takes all trainable parameters.
    sample_weight : array-like of shape (n_samples,), default=None
        How often each sample counts in the mean. It must be None for a Dataset or a DataLoader.
    num_workers : int, default=0
        Number of processes that load a Dataset. A DataLoader has its own number.
    check : bool, default=True
        Whether to try module and loss on a few samples first, which costs some evaluations of 32 samples. A module that
        is not a deterministic function of parameters and data is refused.
    compile : bool or dict, default=False
        Whether to compile the forward and backward pass of the module with ``torch.compile``, for losses and gradients.
        A dict holds options of ``torch.compile``, such as ``{"backend": "aot_eager"}``. See Notes.

    Attributes
    ----------
    theta0 : Tensor of shape (n_params,)
        The module's own parameters in the flat form.
    n_params, n_samples : int
        Dimension of theta, and number of samples.
    shapes : list of tuples
        Shapes of the parameters in theta, in order.
    batch_norm, chunk_size, dtype, device
        The given values, with defaults filled in.
    data : ArrayData or StreamData
        The chunks. You can pass them as ``data`` to another objective, which then shares their memory.
    batch_statistics : bool
        Whether batch norm makes the loss of a sample depend on the other samples of its chunk.

    Raises
    ------
    ValueError
        If the module has no trainable parameters; if X and y have different lengths or no samples; if batch statistics
        would use chunks of one sample; or if a parameter is outside its allowed values. Also if the loss is not a
        function of parameters and data, because the module draws random numbers in evaluation mode or changes its
        parameters in its forward pass; if the data are not the same in every pass; or if the module computes wrong
        second derivatives.

    Notes
    -----
    One value costs a forward pass over the data. One gradient costs a forward and a backward pass. One Hessian-vector
    product costs about three gradients (two by `hessian_operator` on one chunk). Under ``"population"`` the statistics
    are functions of theta, and gradients are exact, because they go through the statistics. A value then costs two
    forward passes, and a gradient about two plain ones. A Hessian-vector product holds the graph of the *whole* data
    set in memory. Otherwise the memory is the graph of one chunk plus a few vectors of n_params numbers, for any number
    of evaluations. With a single chunk, ``"batch"`` and ``"population"`` are the same function.

    With ``compile`` the results may differ in their last digits. The compiled code is first tried on copies of the
    module. A `sklgap.objective.CompileWarning` says why a module is evaluated without compiled code: the compiler is
    missing, the module cannot be compiled as a whole, it has hooks, or the compiled code gives other results. Some
    evaluations are never compiled: Hessian products and gradients of single samples (compiled code cannot be
    differentiated twice), ``batch_norm="population"``, a function ``loss(module, batch)``, and batches whose batch size
    is not one of the two most frequent ones of the data.

    References
    ----------
    Keskar et al., On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima, ICLR 2017,
    Sections 1 and 2.2.

    Examples
    --------
    >>> import torch
    >>> from sklgap.objective import Objective
    >>> X, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
    >>> net = torch.nn.Linear(4, 2)
    >>> f = Objective(net, torch.nn.CrossEntropyLoss(), (X, y))
    >>> f.n_params
    10
    >>> value, gradient = f.gradient(torch.zeros(10))
    >>> round(value, 4), tuple(gradient.shape)
    (0.6931, (10,))
    """

    @using_threads()  # as below, so that a forked process does not wait for the threads of its parent
    def __init__(
        self,
        module: nn.Module,
        criterion: Criterion | RowLoss,
        data: tuple[Inputs, ArrayLike] | Dataset[Any] | DataLoader[Any] | Data,
        *,
        batch_norm: BatchNormPolicy = "batch",
        chunk_size: int = CHUNK_SIZE,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        parameters: Patterns | None = None,
        sample_weight: ArrayLike | None = None,
        num_workers: int = 0,
        check: bool = True,
        compile: bool | Options = False,
    ) -> None:
        check_arguments(Objective.__init__, locals())
        check_gradients_allowed()
        check_no_autocast()
        self.batch_norm = _batch_norm.check_batch_norm(batch_norm)
        self.chunk_size = _check_chunk_size(chunk_size)
        check_integer("num_workers", num_workers, least=0)
        options = check_compile(compile)
        check_module(module)
        module = check_plain(module)
        lazy = lazy_parameters(module)
        if lazy:
            raise ValueError(
                f"module must have parameters with a shape, but {lazy[0]!r} is lazy and gets its shape from the first "
                "batch; call the module on a few samples first."
            )
        own = trainable_parameters(module, parameters)
        if not own:
            raise ValueError("module must have at least one parameter with requires_grad=True; it has 0.")
        first = next(iter(own.values()))
        self.parameters = parameters
        self.dtype = _check_dtype(dtype, own)
        self.device = first.device if device is None else _check_device(device)
        self._module = private_copy(module, self.device, self.dtype)
        self._like = trainable_parameters(self._module, parameters)
        for name, p in self._module.named_parameters():
            p.requires_grad_(name in self._like)
        self.theta0 = flatten(self._like).detach()
        self.n_params = self.theta0.numel()
        self.shapes = [tuple(p.shape) for p in self._like.values()]

        has_batch_norm = bool(_batch_norm.batch_norm_layers(self._module))
        self.batch_statistics = has_batch_norm and self.batch_norm != "running"
        self._whole: WholeBatchLoss | None = None
        whole_batches = takes_module(criterion)
        self.data = self._load(data, sample_weight, num_workers, whole_batches)
        self.n_samples = self.data.n_samples
        if self.batch_statistics and min(self.data.sizes) < 2:
            raise ValueError(
                f"batch_norm={batch_norm!r} needs at least two samples in every chunk; "
                f"got {self.n_samples} samples in {len(self.data.sizes)} chunks."
            )
        if has_batch_norm and self.batch_norm == "running":
            _batch_norm.check_running_statistics(self._module)

        self._tap = None
        if self.batch_statistics:
            if self.batch_norm == "batch":
                _batch_norm.use_batch_statistics(self._module)
            else:
                self._tap = _batch_norm.StatisticsTap(self._module)
        if whole_batches:
            self._whole = WholeBatchLoss(cast(Any, criterion))
            self._fn = ModuleLoss(self._module, RowLoss(_first), infer=self._whole)
        else:
            loss = _double_precision(criterion, self.device)
            self._fn = ModuleLoss(self._module, loss, infer=getattr(criterion, "infer", None))
        # A function of whole batches, or one with an ``infer``, decides itself on the inputs of the module.
        plain = not whole_batches and self._fn.infer is call_module
        self._channels_last = plain and takes_channels_last(self._module, self.data.few().X)
        self._buffers: dict[str, Tensor] = {}
        self._draws = False
        self._limits = Limits()
        if check:
            point = self.theta0.clone().requires_grad_()
            if self._whole is not None:
                few = self.data.few()
                try_argument(lambda: self._fn(unflatten(point, self._like), self._fn.buffers(), few)[0], point, module)
            self._try(criterion, module)
            self._limits = try_gradient(partial(self._loss, point, self.data.few()), module)
            if self._tap is not None:
                self._tap.take()
        self._make_leaves()
        self._settle_weights()
        self._second_derivatives: str | None = None
        if options is not None and self._tap is None and not whole_batches:
            self._fn.compiled = CompiledCalls(self._module, options, _usual_sizes(self.data.sizes))

    def constants(self) -> Params:
        """Return what the loss depends on and what does not vary, as from ``constants_of``."""
        return _batch_norm.constants_of(self._module, self._like)

    def _make_leaves(self) -> None:
        """Make the tensors into which points are copied; new ones for each point would take as long as a layer."""
        self._point = self.theta0.clone()
        self._leaves = leaves_of(self._point, self._like)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the tensors that share memory, because their copies in a pickle would not share it."""
        self._fn.place(self._like)  # torch copies only leaves
        return {name: value for name, value in vars(self).items() if name not in ("_point", "_leaves")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_leaves()

    def _load(self, data: Any, sample_weight: Any, num_workers: int, whole_batches: bool) -> Data:
        if isinstance(data, ArrayData | StreamData):
            return data
        if not is_stream(data):
            if not isinstance(data, tuple | list) or len(data) != 2:
                raise TypeError(f"data must be a pair (X, y), a Dataset or a DataLoader; got {type(data).__name__}.")
            if whole_batches:
                raise TypeError(
                    "data must be a Dataset or a DataLoader if the loss is a function loss(module, batch); got arrays."
                )
            return ArrayData(tuple(data), self.chunk_size, self.dtype, self.device, sample_weight)
        if sample_weight is not None:
            raise ValueError(
                "sample_weight must be None for a Dataset or a DataLoader; instead, pass a function "
                "loss(module, batch) that returns (weighted mean, sum of weights)."
            )
        return stream_data(
            data,
            self.chunk_size,
            self.dtype,
            self.device,
            num_workers=num_workers,
            whole=whole_batches,
            rows_meet=self.batch_statistics,
        )

    def _try(self, criterion: Any, module: nn.Module) -> None:
        """Raise an error if the loss is not a function of parameters and data."""
        batch = self.data.few()._replace(weight=None)  # the module does not depend on the weights of samples
        self._buffers = self._fn.buffers()
        params = unflatten(self.theta0, self._like)
        loss, self._fn.loss = self._fn.loss, self._fn.loss.of_the_mean()
        trial = try_module(self._fn, params, batch)
        self._buffers = self._buffers if trial.moves_buffers else {}
        self._draws = trial.draws
        if self._whole is not None:
            try_whole_batch(self._fn, params, self._buffers, batch)
            if self._whole.weight is None and len(self.data.sizes) > 1:
                self._try_mean_of_batch(module, params, batch)
        else:
            with torch.no_grad(), explained(batch), undisturbed(seed=0):
                y_pred = self._fn(params, self._buffers, batch)[1].y_pred
            if isinstance(y_pred, Tensor):
                self._fn.loss = try_loss(loss, criterion, y_pred, batch.y, len(self.data.sizes))
            elif len(self.data.sizes) > 1 and not self.batch_statistics:
                try_parts(self._fn, params, self._buffers, batch)
        if self._tap is not None:
            self._tap.take()

    def _try_mean_of_batch(self, module: nn.Module, params: Params, batch: Batch) -> None:
        """Raise a ValueError if ``loss(module, batch)`` is not a mean over the samples of the batch."""
        if not self.batch_statistics:
            return try_mean_of_batch(self._fn, params, self._buffers, batch)
        # Batch statistics couple the samples, so parts are compared by the running averages, if there are any.
        copy = private_copy(module, self.device, self.dtype)
        layers = _batch_norm.batch_norm_layers(copy).values()
        if all(getattr(layer, "running_mean", None) is not None for layer in layers):
            fn = ModuleLoss(copy, RowLoss(_first), infer=self._whole)
            try_mean_of_batch(fn, trainable_parameters(copy, self.parameters), fn.buffers(), batch)

    def _settle_weights(self) -> None:
        """Compute the weight of each chunk; the loss stays the plain criterion if all samples have equal weights."""
        self._row_shares = [size / self.n_samples for size in self.data.sizes]
        self._shares, self._mean_weight, self._n_labelled = self._row_shares, 1.0, self.n_samples
        masses = self._masses() if self._whole is None else self._masses_of_batches()
        if masses is None:
            return
        whole = float(sum(masses))
        if not whole > 0:
            raise ValueError("y must have samples that count in the loss; all samples are ignored or have weight 0.")
        self._shares = [mass / whole for mass in masses]
        self._mean_weight = whole / self.n_samples

    def _masses(self) -> list[float] | None:
        """Return the summed weights of every chunk, or None if all samples have equal weights."""
        loss = self._fn.loss
        if loss.counts is None and not self.data.weighted:
            return None
        if loss.terms is None:
            raise TypeError(NO_TERMS)
        found, least, most, self._n_labelled = [], np.inf, 0.0, 0
        for y, weight in self.data.targets():
            weights = loss.weights(y, weight, _wide(y.device))
            assert weights is not None
            found.append(float(weights.sum()))
            least, most = min(least, float(weights.min())), max(most, float(weights.max()))
            # Negative numbers stand for unknown classes, for which no output can be right.
            self._n_labelled += int((y >= 0).sum()) if y.ndim == 1 else len(y)
        if not self.data.weighted and least == most > 0:
            self._fn.loss = loss.alike()
            return None
        return found

    def _masses_of_batches(self) -> list[float] | None:
        """Return the weights that ``loss(module, batch)`` gives to the batches; None if it gives no weights."""
        assert self._whole is not None
        found = []
        with torch.no_grad():
            for chunk in self.data:
                self._forward(unflatten(self.theta0, self._like), chunk)
                if self._whole.weight is None:
                    if len(self.data.sizes) > 1 and not self.data.counted:
                        raise ValueError(
                            "loss(module, batch) must return a pair (mean loss, weight of the batch), because the "
                            "batches do not show their number of samples; batches with tensors of one length do."
                        )
                    return None
                found.append(self._whole.weight)
        return found

    def value(self, theta: Vector | None = None) -> float:
        """Return f(theta), at the module's own parameters by default."""
        return self.evaluate(theta).loss

    def evaluate(self, theta: Vector | None = None) -> Evaluation:
        """Return mean loss and accuracy at ``theta``, at the module's own parameters by default."""
        return self.evaluate_samples(theta)[0]

    @using_threads()
    def evaluate_samples(self, theta: Vector | None = None) -> tuple[Evaluation, np.ndarray | None]:
        """Return mean loss and accuracy at ``theta``, and which samples are predicted right.

        Parameters
        ----------
        theta : Tensor or ndarray of shape (n_params,), default=None
            The point. None means the module's own parameters.

        Returns
        -------
        evaluation : Evaluation
            Mean loss and accuracy, as from `evaluate`.
        right : ndarray of bool of shape (n_samples,), or None
            In the order of X and y, or of the chunks for a Dataset or a DataLoader. None if accuracy is not defined.
        """
        theta = self._check_theta(theta)
        with torch.no_grad(), self._statistics_of(theta):
            leaves = self._at(theta)
            results = [self._evaluate_chunk(leaves, chunk) for chunk in self.data]
        loss, classified = (
            self._mean([loss for loss, _ in results]),
            [right for _, right in results if right is not None],
        )
        if len(classified) < len(results):
            return Evaluation(loss, float("nan")), None
        right = self.data.in_order(torch.cat(classified)).cpu().numpy()
        return Evaluation(loss, int(right.sum()) / self._n_labelled), right

    @using_threads()
    def gradient(self, theta: Vector | None = None) -> tuple[float, Tensor]:
        """Return (f(theta), its gradient of shape (n_params,)), at the module's own parameters by default."""
        theta = self._check_gradient(theta)
        if self._tap is not None:
            return self._population_gradient(theta)
        leaves = self._at(theta)
        if self._shares == [1.0]:
            loss, gradient = gradient_of(partial(self._loss_at, chunk=next(iter(self.data))), leaves)
            return self._mean([loss]), gradient
        losses = []
        total = torch.zeros_like(theta, dtype=_wide(self.device))
        for share, chunk in zip(self._shares, self.data, strict=True):
            loss, gradient = gradient_of(partial(self._loss_at, chunk=chunk), leaves)
            losses.append(loss)
            total.add_(gradient, alpha=share)
        return self._mean(losses), total.to(self.dtype)

    @using_threads()
    def hvp(self, v: Vector, theta: Vector | None = None) -> Tensor:
        """Return the Hessian at ``theta`` times ``v``, both of shape (n_params,).

        The first product of an objective checks the second derivatives of the module; see `second_derivatives`.
        """
        theta, v = self._check_gradient(theta), self._check_theta(v)
        self.check_second_derivatives()
        return self._hvp(v, theta)

    def _hvp(self, v: Tensor, theta: Tensor) -> Tensor:
        with self._twice():
            if self._tap is not None:
                return hessian_vector_product(self._population_loss, theta, v)
            total = torch.zeros_like(theta, dtype=_wide(self.device))
            for share, chunk in zip(self._shares, self.data, strict=True):
                product = hessian_vector_product(partial(self._loss, chunk=chunk), theta, v)
                total.add_(product, alpha=share)
        return total.to(self.dtype)

    @using_threads()
    def hessian_operator(self, theta: Vector | None = None) -> Callable[[Vector], Tensor]:
        """Return the function v -> H v at ``theta``, for many products at one point.

        If the data are one chunk, or the policy is ``"population"``, the function holds the graph of the gradient, and
        a product costs two thirds of `hvp`. The memory is that of one product, and it is held until the function is
        dropped.
        """
        theta = self._check_gradient(theta).clone()
        self.check_second_derivatives()
        if self._tap is None and len(self.data.sizes) > 1:
            return lambda v: self.hvp(v, theta)
        with self._twice():
            loss = partial(self._loss, chunk=next(iter(self.data))) if self._tap is None else self._population_loss
            product = hessian_operator(loss, theta)
        here = self._fn.here
        assert here is not None

        @using_threads()
        def operator(v: Vector) -> Tensor:
            # Layers with gradient checkpointing are evaluated again, with the parameters of the graph of the gradient.
            self._fn.place(here)
            with self._twice():
                return product(self._check_theta(v))

        return operator

    @contextlib.contextmanager
    def _twice(self) -> Iterator[None]:
        """Make the gradient differentiable in this context."""
        # Unlike a gradient, a product takes longer with channels last, by a fifth for C1 on one thread.
        before, self._channels_last = self._channels_last, False
        try:
            with self._fn.uncompiled(), differentiable_twice(self._module):
                yield
        finally:
            self._channels_last = before

    @property
    def second_derivatives(self) -> str:
        """The state of the check of second derivatives: ``"checked"``, or the reason why they were not checked."""
        return self._second_derivatives or "not needed yet"

    def check_second_derivatives(self) -> None:
        """Compare Hessian products with finite differences of gradients once; raise a ValueError if they are wrong.

        The comparison uses a few samples in float64, near the module's own parameters. It costs two products, which
        also test the symmetry, and two or a few more gradients.
        """
        if self._second_derivatives is None:
            self._second_derivatives = check_second_derivatives(self._few_in_double_precision, self)

    def _few_in_double_precision(self) -> "Objective":
        """Return this objective on a few samples in float64 (with their own statistics under ``"population"``)."""
        few = object.__new__(Objective)
        vars(few).update(vars(self))
        few.dtype, few._tap = _wide(self.device), None
        self._fn.place(self._like)  # the leaves
        module = deepcopy(self._module)
        if self._tap is not None:
            _batch_norm.release(module)
            _batch_norm.use_batch_statistics(module)
        few._module = convert(module, self.device, few.dtype)
        few._like = trainable_parameters(few._module, self.parameters)
        few.theta0 = flatten(few._like).detach()
        few._make_leaves()
        few._fn = ModuleLoss(few._module, self._fn.loss, infer=self._fn.infer)
        few._buffers = few._fn.buffers() if self._buffers else {}
        few.data = _OneChunk(self.data.few(), few.dtype)
        few._shares = [1.0]
        return few

    @using_threads()
    def batch_gradient(self, rows: Rows, theta: Vector | None = None) -> tuple[float, Tensor]:
        """Return (mean loss, its gradient of shape (n_params,)) of a mini-batch, the samples at these positions.

        Batch norm uses the statistics of these samples, as in training, or the buffers under ``"running"``. Class
        weights and sample weights are relative to their mean over all data, so that the mean over all mini-batches is
        f.
        """
        theta = self._check_gradient(theta)
        batch = self.data.take(rows)
        if self._tap is not None:
            self._tap.take()  # opens it
        n_rows = len(batch.y)
        # Only samples that depend on each other need one graph.
        size = n_rows if self.batch_statistics or self._whole else self.chunk_size
        losses, total = [], torch.zeros_like(theta, dtype=_wide(self.device))
        for start in range(0, n_rows, size):
            part = batch if size >= n_rows else rows_of(batch, slice(start, start + size))
            loss, gradient = gradient_of(partial(self._loss_at, chunk=part), self._at(theta))
            share = self._mass_of(part) / (self._mean_weight * n_rows)
            losses.append(share * loss)
            total.add_(gradient, alpha=share)
        if self._tap is not None:
            self._tap.take()  # frees what was collected
        return float(torch.stack(losses).sum()), total.to(self.dtype)

    @using_threads()
    def row_gradient_norms(self, rows: Rows, theta: Vector | None = None) -> Tensor:
        """Return the Euclidean norm of the gradient of each sample's loss, of shape (len(rows),).

        With class weights or sample weights, the loss is multiplied by the weight of the sample relative to the mean
        weight over all data.
        """
        if self.batch_statistics:
            raise ValueError(
                f"batch_norm must be 'running' for the gradients of single samples; got {self.batch_norm!r}."
            )
        theta = self._check_gradient(theta)
        params = unflatten(theta, self._like)

        def loss(params: Params, X: Any, y: Tensor) -> Tensor:
            return self._fn(params, self._buffers, Batch(map_tensors(lambda t: t[None], X), y[None]))[0]

        def alone(X: Any, y: Tensor) -> Tensor:
            one = Batch(map_tensors(lambda t: t[None], X), y[None])
            return gradient_of(partial(self._loss_at, chunk=one), self._at(theta))[1]

        size = max(1, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // self.n_params))
        norms = []
        for block in torch.as_tensor(rows).split(size):
            batch = self.data.take(block)
            with self._fn.uncompiled():
                found = row_gradient_norms(loss, params, batch.X, batch.y, alone).to(_wide(self.device))
            weights = self._fn.loss.weights(batch.y, batch.weight, found.dtype)
            norms.append(found if weights is None else found * weights / self._mean_weight)
        return torch.cat(norms)

    def _mass_of(self, batch: Batch) -> float:
        """Return the total weight of the samples, for a whole batch the weight that its loss has just returned."""
        if self._whole is not None and self._whole.weight is not None:
            return self._whole.weight
        weights = self._fn.loss.weights(batch.y, batch.weight, _wide(self.device))
        return float(len(batch.y)) if weights is None else float(weights.sum())

    @property
    def loss(self) -> RowLoss:
        """The loss of the module's outputs."""
        return self._fn.loss

    @contextlib.contextmanager
    def using_loss(self, loss: RowLoss) -> Iterator[None]:
        """Make f the mean of another loss of the same outputs in this context; the weights of samples do not change."""
        before, self._fn.loss = self._fn.loss, loss
        try:
            yield
        finally:
            self._fn.loss = before

    def restrict(self, subspace: "Subspace") -> RestrictedObjective:
        """Return f on the affine subspace z -> theta0 + A z, with the same methods in z."""
        return RestrictedObjective(self, subspace)

    @using_threads()
    def population_statistics(self, theta: Vector | None = None) -> _batch_norm.Statistics:
        """Return mean and variance of the input of every batch-norm layer over the data; needs ``"population"``."""
        return self.population_statistics_and_uses(theta)[0]

    @using_threads()
    def population_statistics_and_uses(
        self, theta: Vector | None = None
    ) -> tuple[_batch_norm.Statistics, dict[str, int]]:
        """Return `population_statistics`, and the number of uses of each layer in a forward pass."""
        if self._tap is None:
            return {}, {}
        with torch.no_grad():
            collected = self._collect(self._check_theta(theta))
        return _batch_norm.pool(collected, self._row_shares), {name: len(own) for name, own in collected[0].items()}

    # -- one chunk ------------------------------------------------------------------------------------------------

    def _mean(self, losses: list[Tensor]) -> float:
        """Return the mean over all samples, summed in float64 after one transfer from the device."""
        if len(losses) == 1:
            return self._shares[0] * float(losses[0])
        return float(np.dot(self._shares, torch.stack(losses).cpu().double().numpy()))

    def _at(self, theta: Tensor) -> Params:
        """Return the leaves with the values of ``theta``."""
        self._point.copy_(theta)
        return self._leaves

    def _forward(self, params: Params, chunk: Batch) -> tuple[Tensor, Aux]:
        # The parameters stay in the module, a private copy, for layers that are evaluated again with the gradient.
        self._fn.place(params)
        if self._channels_last:
            chunk = chunk._replace(X=channels_last(chunk.X))
        if self._draws:
            with undisturbed():
                loss, aux = self._fn(params, self._buffers, chunk)
        else:
            loss, aux = self._fn(params, self._buffers, chunk)
        if loss.ndim:
            raise ValueError(f"criterion must return the mean loss as a scalar; got shape {tuple(loss.shape)}.")
        return loss, aux

    def _loss(self, theta: Tensor, chunk: Batch) -> Tensor:
        return self._loss_at(unflatten(theta, self._like), chunk)

    def _loss_at(self, params: Params, chunk: Batch) -> Tensor:
        return self._forward(params, chunk)[0]

    def _evaluate_chunk(self, params: Params, chunk: Batch) -> tuple[Tensor, Tensor | None]:
        loss, aux = self._forward(params, chunk)
        return loss, predicted_right(aux.y_pred, chunk.y) if is_classification(aux.y_pred, chunk.y) else None

    def _check_theta(self, theta: Vector | None) -> Tensor:
        if theta is None:
            return self.theta0
        if self._limits.elsewhere:
            raise ValueError(self._limits.elsewhere)
        theta = torch.as_tensor(theta, dtype=self.dtype, device=self.device)
        if theta.shape != self.theta0.shape:
            raise ValueError(f"theta must have shape ({self.n_params},); got {tuple(theta.shape)}.")
        return theta.detach()

    def _check_gradient(self, theta: Vector | None) -> Tensor:
        reason = self._limits.gradient or self._limits.elsewhere
        if reason:
            raise ValueError(reason)
        return self._check_theta(theta)

    # -- population statistics, through which f depends on theta too ------------------------------------------------

    def _collect(self, theta: Tensor) -> list[dict[str, list[tuple[Tensor, Tensor]]]]:
        assert self._tap is not None
        self._tap.take()  # drops what an interrupted evaluation left behind
        collected = []
        for chunk in self.data:
            self._forward(unflatten(theta, self._like), chunk)
            collected.append(self._tap.take())
        return collected

    def _pooled(self, theta: Tensor) -> _batch_norm.Statistics:
        return _batch_norm.pool(self._collect(theta), self._row_shares)

    def _statistics_of(self, theta: Tensor) -> "_Given":
        return _Given(self._tap, None if self._tap is None else self._pooled(theta))

    def _population_loss(self, theta: Tensor) -> Tensor:
        with _Given(self._tap, self._pooled(theta)):
            losses = [self._loss(theta, chunk) for chunk in self.data]
        assert self._tap is not None
        self._tap.closed = True
        return torch.stack([share * loss for share, loss in zip(self._shares, losses, strict=True)]).sum()

    def _population_gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """Return value and exact gradient, with the graph of one chunk in memory at a time.

        Let s_c(theta) be the statistics of chunk c and S = pool(s_1, ..., s_C). Then f = sum_c w_c L_c(theta, S). The
        code first computes the partial gradients in theta and in S. It then takes the gradients in S through the pool
        and through s_c(theta) of each chunk.
        """
        assert self._tap is not None
        with torch.no_grad():
            collected = self._collect(theta)
        leaves = [
            {k: [(m.requires_grad_(), v.requires_grad_()) for m, v in s] for k, s in c.items()} for c in collected
        ]
        pooled = _batch_norm.pool(leaves, self._row_shares)
        given = {k: (m.detach().requires_grad_(), v.detach().requires_grad_()) for k, (m, v) in pooled.items()}
        point = theta.detach().requires_grad_()

        losses = []
        total = torch.zeros_like(theta, dtype=_wide(self.device))
        inputs = [point] + _tensors(given.values())
        from_pool = [torch.zeros_like(t) for t in inputs[1:]]
        with _Given(self._tap, given):
            for share, chunk in zip(self._shares, self.data, strict=True):
                loss = self._loss(point, chunk)
                # A layer may be evaluated for an output that the loss does not use.
                gradients = gradients_of(loss, inputs, allow_unused=True, materialize_grads=True)
                losses.append(loss.detach())
                total.add_(gradients[0], alpha=share)
                for accumulated, g in zip(from_pool, gradients[1:], strict=True):
                    accumulated.add_(g, alpha=share)
        if not from_pool:
            return self._mean(losses), total.to(self.dtype)

        flat_leaves = [t for c in leaves for s in c.values() for t in _tensors(s)]
        through_pool = iter(pulled_back(_tensors(pooled.values()), flat_leaves, from_pool))
        for chunk in self.data:
            self._tap.take()  # drops what gradient checkpointing collected again in the last backward pass
            self._forward(unflatten(point, self._like), chunk)
            own = [t for s in self._tap.take().values() for t in _tensors(s)]
            pairs = [(t, next(through_pool)) for t in own]
            moving = [(t, outer) for t, outer in pairs if t.requires_grad]  # False before the first trained layer
            if moving:
                tensors, outers = zip(*moving, strict=True)
                total.add_(pulled_back(tensors, [point], outers)[0])
        return self._mean(losses), total.to(self.dtype)


class _Given:
    """A context in which batch norm uses the given statistics. Without a tap nothing happens."""

    def __init__(self, tap: _batch_norm.StatisticsTap | None, statistics: _batch_norm.Statistics | None) -> None:
        self.tap, self.statistics = tap, statistics

    def __enter__(self) -> None:
        if self.tap is not None:
            self.tap.given = self.statistics

    def __exit__(self, *exception: object) -> None:
        if self.tap is not None:
            self.tap.given = None


def _tensors(pairs: Any) -> list[Tensor]:
    return [tensor for pair in pairs for tensor in pair]


def _usual_sizes(sizes: list[int]) -> list[int]:
    """Return the two most frequent chunk sizes; chunks of arrays have no other sizes."""
    return [size for size, _ in Counter(sizes).most_common(2)]


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's devices lack float64


class _OneChunk:
    """A few samples as the data of an objective."""

    def __init__(self, batch: Batch, dtype: torch.dtype) -> None:
        X = map_tensors(lambda t: t.to(dtype) if t.is_floating_point() else t, batch.X)
        self.batch, self.sizes, self.n_samples = batch._replace(X=X), [len(batch.y)], len(batch.y)
        self.weighted, self.counted = batch.weight is not None, True

    def __iter__(self) -> Iterator[Batch]:
        return iter([self.batch])

    def take(self, rows: Rows) -> Batch:
        return rows_of(self.batch, torch.as_tensor(rows))

    def few(self) -> Batch:
        return self.batch

    def targets(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        yield self.batch.y, self.batch.weight

    def in_order(self, values: Tensor) -> Tensor:
        return values


def takes_module(criterion: Any) -> bool:
    """Say whether it is a function ``loss(module, batch)``, whose first argument is named ``module`` or ``model``."""
    if isinstance(criterion, nn.Module | RowLoss) or not callable(criterion):
        return False
    try:
        names = list(inspect.signature(criterion).parameters)
    except (TypeError, ValueError):
        return False
    return bool(names) and names[0] in ("module", "model")


class WholeBatchLoss:
    """A user's ``loss(module, batch)``. ``weight`` is the weight of the last batch, if the function returns it."""

    def __init__(self, loss: Callable[[nn.Module, Any], Any]) -> None:
        self.loss = loss
        self.weight: float | None = None

    def __call__(self, module: nn.Module, batch: Any) -> Tensor:
        """Return the mean loss of a batch."""
        returned = self.loss(module, batch)
        mean, weight = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
        self.weight = None if weight is None else float(weight)
        if not isinstance(mean, Tensor):
            raise TypeError(
                "loss(module, batch) must return the mean loss as a tensor, or a pair (mean loss, weight of the "
                f"batch); got a {type(mean).__name__}."
            )
        return mean


def _first(y_pred: Tensor, y: Tensor) -> Tensor:
    return y_pred


def _double_precision(criterion: Any, device: torch.device) -> RowLoss:
    if isinstance(criterion, RowLoss):
        return criterion
    if isinstance(criterion, type) or not callable(criterion):
        raise TypeError(
            f"criterion must be a function of (y_pred, y), such as CrossEntropyLoss(); got {shown(criterion)}."
        )
    if not isinstance(criterion, nn.Module):
        return RowLoss(criterion, criterion=criterion)
    if getattr(criterion, "reduction", "mean") != "mean":
        raise ValueError(f"criterion must have reduction='mean'; got reduction={criterion.reduction!r}.")
    wide = _wide(device)
    exact = convert(deepcopy(criterion), device, wide)

    def evaluate(loss: Criterion) -> Criterion:
        return lambda y_pred, y: loss(y_pred.to(wide), y.to(wide) if torch.is_floating_point(y) else y)

    return row_loss(exact, evaluate, gaps=True)


def _check_chunk_size(chunk_size: int) -> int:
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int | np.integer) or chunk_size < 1:
        raise ValueError(f"chunk_size must be an integer of at least 1; got {chunk_size!r}.")
    return int(chunk_size)


def _check_dtype(dtype: torch.dtype | None, params: Params) -> torch.dtype:
    own = next(iter(params.values())).dtype
    own = {torch.complex64: torch.float32, torch.complex128: torch.float64}.get(own, own)
    if dtype is None and own not in (torch.float32, torch.float64):
        raise ValueError(
            f"module must have parameters in torch.float32 or torch.float64; got {own}; pass dtype=torch.float32 to "
            "measure a copy of it in single precision."
        )
    dtype = own if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64; got {shown(dtype)}.")
    return dtype


def _check_device(device: Any) -> torch.device:
    if isinstance(device, str | torch.device):
        try:
            torch.empty(0, device=device)
            return torch.device(device)
        except (RuntimeError, AssertionError, NotImplementedError):  # the device is unknown or missing
            pass
    raise WrongArgument(f"device must be None or a torch device of this machine, such as 'cpu'; got {shown(device)}.")
