"""The loss surface: f(theta) = mean_i loss(net_theta(x_i), y_i) over fixed data, as an object to measure."""

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
from sklgap.objective._trial import Limits, explained, try_gradient, try_loss, try_module, try_parts, try_whole_batch

if TYPE_CHECKING:
    from sklgap.objective._subspace import Subspace

Vector = Tensor | np.ndarray

# Gradients of single rows are held in blocks of at most so many numbers (32 MB in float32, about a processor's cache)
# and so many rows.
_NUMBERS_AT_ONCE = 2**23
_ROWS_AT_ONCE = 256


class Evaluation(NamedTuple):
    """Mean loss, and accuracy as a fraction (NaN where the outputs are not one score per class)."""

    loss: float
    accuracy: float


class Objective:
    r"""The mean loss of a module on fixed data as a function of its parameters.

    .. math:: f(\theta) = \frac{1}{n} \sum_{i=1}^n \ell(\mathrm{net}_\theta(x_i), y_i)

    Everything this package measures (sharpness, curvature, loss along a line) is measured on such an object. The
    module given is copied and never modified: neither weights nor buffers, ``.grad``, train/eval mode or the global
    random state. Dropout is always off.

    Parameters
    ----------
    module : torch.nn.Module
        Maps the inputs to the outputs the criterion takes: a tensor, a tuple whose first element is one, or a dict or
        an object with ``logits``. ``theta`` holds its parameters with ``requires_grad=True``, in the order of
        ``module.named_parameters()``, a complex number as its real and imaginary part; frozen parameters are
        constants.
    criterion : torch.nn.Module or callable
        Maps (y_pred, y) to the mean loss of the samples. A torch loss module is copied and evaluated in float64 on the
        outputs, so that small losses keep their digits; any other callable is called as it is. A module with
        ``reduction="sum"`` or ``"none"`` is refused. Class weights and ``ignore_index`` are exact: the weighted sum of
        losses over all data is divided by the sum of the weights over all data.

        Or a function ``loss(module, batch)``, whose first argument is named ``module`` or ``model``: it takes whatever
        a loader yields and returns the mean loss of the batch, or a pair (mean loss, weight of the batch) where
        batches do not count by their number of samples, such as (mean over tokens, number of tokens).
    data : tuple (X, y), torch.utils.data.Dataset or torch.utils.data.DataLoader
        X of shape (n_samples, ...), or a tuple or dict of such arrays for ``module(*X)`` or ``module(**X)``, or a
        sparse matrix, which is made dense chunk by chunk; y of shape (n_samples, ...). A Dataset is cut into chunks
        and loaded when it is needed. The batches of a DataLoader are the chunks. Each of their batches is
        (inputs, target), or a dict with ``"labels"``.
    batch_norm : {"batch", "population", "running"}, default="batch"
        Batch statistics over fixed chunks of the data (the choice of the paper), statistics recomputed over the whole
        data set at the point measured, or the module's running buffers. See Notes.
    chunk_size : int, default=5000
        Rows evaluated at once (5,000: the released code of the paper). The data are cut into
        ceil(n_samples / chunk_size) chunks whose sizes differ by at most one row, drawn by a fixed permutation (rows
        sorted by class would make one-class chunks, whose batch statistics are meaningless), and weighted exactly.
    dtype : torch.dtype, default=None
        ``torch.float32`` or ``torch.float64`` for parameters and data; None: as the module's parameters. Sums over
        chunks are accumulated in float64 in either case.
    device : str or torch.device, default=None
        None: where the module is. Arrays are moved there once and stay; a stream is moved chunk by chunk.
    parameters : str or list of str, default=None
        Measure with respect to the parameters whose names match, as file names match (``"encoder.*"``); the others are
        constants. None: all trainable parameters.
    sample_weight : array-like of shape (n_samples,), default=None
        How often each sample counts in the mean. Not for streams.
    num_workers : int, default=0
        Processes that load a Dataset. A DataLoader has its own.
    check : bool, default=True
        Whether to try module and loss on a few samples first, at the cost of some evaluations of 32 samples: a module
        that is not a deterministic function of parameters and data is refused.
    compile : bool or dict, default=False
        Compile the forward and backward pass of the module by ``torch.compile``, for losses and gradients. A dict
        holds options of ``torch.compile``, such as ``{"backend": "aot_eager"}``. See Notes.

    Attributes
    ----------
    theta0 : Tensor of shape (n_params,)
        The module's own parameters.
    n_params, n_samples : int
        Dimension of theta, and number of rows.
    shapes : list of tuples
        Shapes of the parameters that theta holds, in order.
    batch_norm, chunk_size, dtype, device
        As given, resolved.
    data : ArrayData or StreamData
        The chunks. Another objective takes them in place of ``data``, and shares their memory.
    batch_statistics : bool
        Whether batch norm makes the loss of a row depend on the rows beside it.

    Raises
    ------
    ValueError
        For a module without trainable parameters, unequal lengths of X and y, no rows, batch statistics over chunks
        of one row, or a parameter outside its allowed values. For a module whose loss is not a function of
        parameters and data: one that draws random numbers in evaluation mode, or changes its parameters in its forward
        pass. For data that are not the same in every pass. For second derivatives that the module computes wrongly.

    Notes
    -----
    One value costs a forward pass over the data, one gradient a forward and a backward pass, one Hessian-vector product
    about three gradients (two by `hessian_operator` on one chunk). Under ``"population"`` the statistics are functions
    of theta, and gradients are the exact ones, through the statistics: a value costs two forward passes, a gradient
    about two plain ones; a Hessian-vector product holds the graph of the *whole* data set in memory. Memory is that of
    one chunk's graph plus a few vectors of n_params, whatever the number of evaluations. With a single chunk
    ``"batch"`` and ``"population"`` are the same function.

    With ``compile`` the results may differ in their last digits. The compiled code is first tried on copies of the
    module. A `sklgap.objective.CompileWarning` says why a module is evaluated without it: the compiler is missing, the
    module cannot be compiled as a whole, it has hooks, or the compiled code gives other results. Some evaluations are
    never compiled: Hessian products and gradients of single rows (compiled code cannot be differentiated twice),
    ``batch_norm="population"``, a function ``loss(module, batch)``, and batches whose size is not one of the two most
    frequent ones of the data.

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

    @using_threads()  # here and below: a forked process must not wait for the threads of its parent
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
        self.batch_norm = _batch_norm.check_batch_norm(batch_norm)
        self.chunk_size = _check_chunk_size(chunk_size)
        check_integer("num_workers", num_workers, least=0)
        options = check_compile(compile)
        check_module(module)
        module = check_plain(module)
        lazy = lazy_parameters(module)
        if lazy:
            raise ValueError(
                f"module must have parameters; {lazy[0]!r} is lazy and gets its shape from the first batch: call the "
                "module on a few samples before."
            )
        own = trainable_parameters(module, parameters)
        if not own:
            raise ValueError("module must have at least one parameter that requires a gradient; it has none.")
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
                f"batch_norm={batch_norm!r} needs at least two rows in every chunk; "
                f"got {self.n_samples} rows in {len(self.data.sizes)} chunks."
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
        # A function of whole batches, or with an ``infer``, decides itself what the module is given.
        plain = not whole_batches and self._fn.infer is call_module
        self._channels_last = plain and takes_channels_last(self._module, self.data.few().X)
        self._buffers: dict[str, Tensor] = {}
        self._draws = False
        self._limits = Limits()
        if check:
            self._try(criterion, whole_batches)
            point = self.theta0.clone().requires_grad_()
            self._limits = try_gradient(partial(self._loss, point, self.data.few()), module)
            if self._tap is not None:
                self._tap.take()
        self._make_leaves()
        self._settle_weights()
        self._second_derivatives: str | None = None
        if options is not None and self._tap is None and not whole_batches:
            self._fn.compiled = CompiledCalls(self._module, options, _usual_sizes(self.data.sizes))

    def _make_leaves(self) -> None:
        """Make the tensors that every point is copied into: new ones for each point would take as long as a layer."""
        self._point = self.theta0.clone()
        self._leaves = leaves_of(self._point, self._like)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the tensors that share memory: their copies in a pickle would not share it."""
        self._fn.place(self._like)  # torch copies leaves only
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
                    "data must be a Dataset or a DataLoader for a function loss(module, batch); got arrays."
                )
            return ArrayData(tuple(data), self.chunk_size, self.dtype, self.device, sample_weight)
        if sample_weight is not None:
            raise ValueError(
                "sample_weight must be None for a Dataset or a DataLoader: give a function loss(module, batch) that "
                "returns (weighted mean, sum of weights)."
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

    def _try(self, criterion: Any, whole_batches: bool) -> None:
        """Refuse what is not a function of parameters and data."""
        batch = self.data.few()._replace(weight=None)  # what samples count for is no matter of the module
        self._buffers = self._fn.buffers()
        params = unflatten(self.theta0, self._like)
        loss, self._fn.loss = self._fn.loss, self._fn.loss.of_the_mean()
        trial = try_module(self._fn, params, batch)
        self._buffers = self._buffers if trial.moves_buffers else {}
        self._draws = trial.draws
        if whole_batches:
            try_whole_batch(self._fn, params, self._buffers, batch)
        else:
            with torch.no_grad(), explained(batch), undisturbed(seed=0):
                y_pred = self._fn(params, self._buffers, batch)[1].y_pred
            if isinstance(y_pred, Tensor):
                self._fn.loss = try_loss(loss, criterion, y_pred, batch.y, len(self.data.sizes))
            elif len(self.data.sizes) > 1 and not self.batch_statistics:
                try_parts(self._fn, params, self._buffers, batch)
        if self._tap is not None:
            self._tap.take()

    def _settle_weights(self) -> None:
        """Find what each chunk counts for; the loss stays the plain criterion where all samples count alike."""
        self._row_shares = [size / self.n_samples for size in self.data.sizes]
        self._shares, self._mean_weight, self._n_labelled = self._row_shares, 1.0, self.n_samples
        masses = self._masses() if self._whole is None else self._masses_of_batches()
        if masses is None:
            return
        whole = float(sum(masses))
        if not whole > 0:
            raise ValueError("y must have samples that count in the loss; all are ignored or have weight 0.")
        self._shares = [mass / whole for mass in masses]
        self._mean_weight = whole / self.n_samples

    def _masses(self) -> list[float] | None:
        """Return the summed weights of every chunk, or None where all samples count alike."""
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
            # Negative numbers stand for classes that are not known: no output can be right there.
            self._n_labelled += int((y >= 0).sum()) if y.ndim == 1 else len(y)
        if not self.data.weighted and least == most > 0:
            self._fn.loss = loss.alike()
            return None
        return found

    def _masses_of_batches(self) -> list[float] | None:
        """Return the weights that ``loss(module, batch)`` gives to the batches; None where it gives none."""
        assert self._whole is not None
        found = []
        with torch.no_grad():
            for chunk in self.data:
                self._forward(unflatten(self.theta0, self._like), chunk)
                if self._whole.weight is None:
                    if len(self.data.sizes) > 1 and not self.data.counted:
                        raise ValueError(
                            "loss(module, batch) must return a pair (mean loss, weight of the batch) for batches that "
                            "do not show how many samples they have, as those with tensors of one length do."
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
            None: the module's own parameters.

        Returns
        -------
        evaluation : Evaluation
            As `evaluate` returns it.
        right : ndarray of bool of shape (n_samples,), or None
            In the order of X and y, and for a stream in that of its chunks; None where accuracy is not defined.
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

        The first product of an objective checks the second derivatives of the module: see `second_derivatives`.
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
        """Return the function v -> H v at ``theta``: for many products at one point.

        Where the data are one chunk, or the policy is ``"population"``, it keeps the graph of the gradient, and a
        product costs two thirds of `hvp`; the memory, that of one product, is held until the function is dropped.
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
            # Layers with gradient checkpointing are evaluated again, with the parameters of the gradient's graph.
            self._fn.place(here)
            with self._twice():
                return product(self._check_theta(v))

        return operator

    @contextlib.contextmanager
    def _twice(self) -> Iterator[None]:
        """Within it the gradient can be differentiated."""
        # Unlike a gradient, a product takes longer with the channels last: by a fifth for C1 on one thread.
        before, self._channels_last = self._channels_last, False
        try:
            with self._fn.uncompiled(), differentiable_twice(self._module):
                yield
        finally:
            self._channels_last = before

    @property
    def second_derivatives(self) -> str:
        """What is known of the module's second derivatives: ``"checked"``, or why they could not be checked."""
        return self._second_derivatives or "not needed yet"

    def check_second_derivatives(self) -> None:
        """Compare Hessian products with finite differences of gradients, once; ValueError where they are wrong.

        On a few samples in float64, near the module's own parameters: two products, for the symmetry, and two gradients
        or a few more.
        """
        if self._second_derivatives is None:
            self._second_derivatives = check_second_derivatives(self._few_in_double_precision, self)

    def _few_in_double_precision(self) -> "Objective":
        """Return this objective on a few samples in float64; under ``"population"`` with their own statistics."""
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
        """Return (mean loss, its gradient of shape (n_params,)) of a mini-batch: the rows at these positions.

        Batch norm uses the statistics of these rows, as in training, or the buffers under ``"running"``. Class weights
        and sample weights are relative to their mean over all data, so that the mean over all mini-batches is f.
        """
        theta = self._check_gradient(theta)
        batch = self.data.take(rows)
        if self._tap is not None:
            self._tap.take()  # opens it
        n_rows = len(batch.y)
        # Only rows that depend on each other need one graph.
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
        """Return the Euclidean norm of the gradient of each row's own loss, of shape (len(rows),).

        With class weights or sample weights, of the loss times the row's weight relative to their mean over all data.
        """
        if self.batch_statistics:
            raise ValueError(f"batch_norm must be 'running' for the gradients of single rows; got {self.batch_norm!r}.")
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
        """Return what the samples count for; of a whole batch as its loss has just said."""
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
        """Within it, f is the mean of another loss of the same outputs, in which samples count as before."""
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
        """Return `population_statistics`, and how often each layer was used in a forward pass."""
        if self._tap is None:
            return {}, {}
        with torch.no_grad():
            collected = self._collect(self._check_theta(theta))
        return _batch_norm.pool(collected, self._row_shares), {name: len(own) for name, own in collected[0].items()}

    # -- one chunk ------------------------------------------------------------------------------------------------

    def _mean(self, losses: list[Tensor]) -> float:
        """Return the mean over all rows: one transfer from the device, the sum in float64."""
        if len(losses) == 1:
            return self._shares[0] * float(losses[0])
        return float(np.dot(self._shares, torch.stack(losses).cpu().double().numpy()))

    def _at(self, theta: Tensor) -> Params:
        """Return the leaves with the values of ``theta``."""
        self._point.copy_(theta)
        return self._leaves

    def _forward(self, params: Params, chunk: Batch) -> tuple[Tensor, Aux]:
        # They stay in the module, a private copy, for what is evaluated again while the gradient is computed.
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

    # -- population statistics: f depends on theta through them too -------------------------------------------------

    def _collect(self, theta: Tensor) -> list[dict[str, list[tuple[Tensor, Tensor]]]]:
        assert self._tap is not None
        self._tap.take()  # what an evaluation that was interrupted left behind
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
        """Return value and exact gradient with one chunk's graph in memory at a time.

        With s_c(theta) the statistics of chunk c and S = pool(s_1, ..., s_C), f = sum_c w_c L_c(theta, S). First the
        partial gradients in theta and in S, then the latter through the pool and through each chunk's s_c(theta).
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
            self._tap.take()  # what gradient checkpointing collected again in the backward pass before
            self._forward(unflatten(point, self._like), chunk)
            own = [t for s in self._tap.take().values() for t in _tensors(s)]
            pairs = [(t, next(through_pool)) for t in own]
            moving = [(t, outer) for t, outer in pairs if t.requires_grad]  # not so before the first trained layer
            if moving:
                tensors, outers = zip(*moving, strict=True)
                total.add_(pulled_back(tensors, [point], outers)[0])
        return self._mean(losses), total.to(self.dtype)


class _Given:
    """Within it, batch norm uses the statistics given; nothing happens without a tap."""

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
    """Return the two most frequent sizes of a chunk; chunks of arrays have no others."""
    return [size for size, _ in Counter(sizes).most_common(2)]


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's devices know no float64


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
    """Say whether it is a function ``loss(module, batch)``: its first argument is named ``module`` or ``model``."""
    if isinstance(criterion, nn.Module | RowLoss) or not callable(criterion):
        return False
    try:
        names = list(inspect.signature(criterion).parameters)
    except (TypeError, ValueError):
        return False
    return bool(names) and names[0] in ("module", "model")


class WholeBatchLoss:
    """A user's ``loss(module, batch)``; ``weight`` is what the last batch counts for, where the function says so."""

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
                f"batch); got {type(mean).__name__}."
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
            f"module must have parameters in torch.float32 or torch.float64; got {own}: pass dtype=torch.float32 to "
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
        except (RuntimeError, AssertionError, NotImplementedError):  # unknown, or not there
            pass
    raise WrongArgument(f"device must be None or a torch device of this machine, such as 'cpu'; got {shown(device)}.")
