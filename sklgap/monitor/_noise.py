"""The gradient noise scale, measured while a model trains in any training loop."""

import contextlib
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from sklgap._checks import check_fraction, check_integer, check_module, check_sizes, shown
from sklgap.monitor._backward import seen
from sklgap.monitor._batches import check_in_reach, number_of_rows, parts_of
from sklgap.monitor._clock import Clock
from sklgap.monitor._distributed import averaging_of, of_all_processes
from sklgap.monitor._loss import BatchLoss, counts_in_samples, loss_of_batch
from sklgap.monitor._module import unchanged, unwrapped
from sklgap.monitor._norms import NO_V, as_array, dense, squared_norm, squared_norms, wide
from sklgap.monitor._sign_geometry import SignSums, sign_noise_scale_of, sign_saving
from sklgap.monitor._window import LEAST_STRETCHES, noise_scale_of
from sklgap.objective._autodiff import check_gradients_allowed, gradients_of
from sklgap.objective._gradient_hooks import accumulation_hooked_parameter
from sklgap.objective._parameters import Patterns, real, trainable_parameters

Geometry = Literal["euclidean", "adam", "l1"]
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_ALL = "all"
_CHANGES_ITSELF = (
    "must not change its parameters in its forward pass, as Embedding(max_norm=...) does. A measurement by "
    "step(batch) would change the training; use accumulate."
)


class BatchSizeMonitor:
    r"""Measure the gradient noise scale in a training loop, to find the batch size that is useful for speed.

    Every measured update gives the gradients :math:`g_k` of K parts with :math:`n_k` samples each, N samples in total.
    Their mean is :math:`\bar g = \sum_k n_k g_k / N`. The monitor computes unbiased estimates of the noise t of a
    single sample and of the squared norm s of the gradient:

    .. math:: t = \frac{1}{K - 1} \sum_k n_k \|g_k - \bar g\|^2, \qquad s = \|\bar g\|^2 - t / N

    The noise scale, also called the knee, is the sum of t divided by the sum of s over the last ``window``
    measurements. It is not a mean of ratios. The number of updates to a given loss is proportional to 1 + knee / B,
    where B is the batch size.

    Parameters
    ----------
    module : nn.Module
        The model to train. It may be wrapped by ``torch.compile`` or ``DistributedDataParallel``. With the latter,
        `accumulate` uses the gradients of the processes as parts, and all processes get the same estimates. `step`
        measures the share of the batch of each process separately.
    loss : callable, default=None
        The loss, which `step` needs. Either a criterion of (outputs, target) for batches (inputs, target), or a
        function ``loss(module, batch)`` for batches of any form. The function returns the mean loss, or (mean loss,
        weight of the batch), where the weight is for example the number of tokens. Its first argument is named
        ``module`` or ``model``.
    every : int, default=None
        Number of updates between two measurements. None means as often as ``max_overhead`` allows. With `accumulate`,
        None means every update, because a measurement only reads the gradients twice.
    parts : int, default=8
        Number of parts into which `step` cuts a batch, at least 2.
    parameters : str, list of str or dict, default=None
        Patterns of parameter names, such as ``"encoder.*"``. The monitor measures only the gradients of these
        parameters. A dict ``{group: patterns}`` measures each group, and all groups together. None means all trainable
        parameters.
    geometry : {"euclidean", "adam", "l1"}, default="euclidean"
        How the coordinates of a gradient are weighted. ``"adam"`` weights a coordinate by
        :math:`1 / (\sqrt{\hat v} + \epsilon)`, with v from ``optimizer``. ``"l1"`` measures noise and gradient in the
        L1 norm, :math:`(\sum_j \sigma_j / \sum_j |g_j|)^2`. It is for signSGD, Lion and similar optimisers, and works
        only with ``step(batch)``.
    max_overhead : float, default=0.03
        Largest share of the training time that `step` may take if ``every`` is None.
    optimizer : torch.optim.Optimizer, default=None
        Adam or a similar optimiser. Required for ``geometry="adam"``, and allowed only there.
    scaler : torch.amp.GradScaler, default=None
        The scaler of a training in half precision. The monitor measures unscaled gradients and skips those that
        overflow.
    window : int, default=100
        Number of the last measurements from which the estimate is made, at least 8.

    Attributes
    ----------
    n_measurements : int
        Number of measured updates.
    n_skipped : int
        Number of updates that could not be measured. The reasons are: the last batch of an epoch is too short for its
        parts; the update has a single micro-batch; a gradient overflows under a ``scaler``; Adam has no v yet; or
        targets are ignored in all parts but one.
    batch_size : int or None
        Number of samples of the last measured update.
    counts_samples : bool
        Whether the noise scale is a number of samples. It is False if the weights of a ``loss`` count something else,
        such as tokens.

    Notes
    -----
    The training is bit for bit the same as without the monitor. A measurement does not change weights, ``.grad``,
    buffers, random generators, training mode or optimiser. It does run the hooks of the module.

    The interval is the 95 % interval of Fieller. Successive measurements depend on each other. The standard errors
    therefore come from the means of up to 10 consecutive stretches of the window (batch means), with Student's t. Fewer
    than 8 measurements give no interval. The interval is correct if the stretches are longer than the memory of the
    noise. A drift of the gradient within the window makes the interval wider.

    The parts are treated as independent draws. Under batch norm each part uses its own statistics, so the expected
    gradients depend on the size of the parts. Dropout counts as noise. With ``geometry="adam"``, v must not contain the
    measured gradient, so call `step` before ``optimizer.step()``. Call it before in every case: after the update, the
    weights have just been fitted to the batch, and the estimate is biased.

    With ``geometry="l1"`` there is no unbiased estimate. The state has two bounds of :math:`\sum_j |g_j|`. The absolute
    values of the gradient of the batch are too large on average. One half of the batch times the signs of the other
    half is too small on average. The ratio of the bounds is the bias. The interval spans both bounds, and the noise
    scale is the geometric mean of the two resulting noise scales.

    If the module starts to train other parameters (frozen, unfrozen or replaced ones), the window starts again.

    With a criterion, the noise scale is a number of samples, even if class weights or ignored targets make samples
    count differently. With a function that returns a weight, the noise scale has the unit of that weight.

    A noise scale is about the speed of training and says nothing about accuracy. Its theory treats the Hessian as a
    multiple of the identity (McCandlish et al.), so read the value as an order of magnitude.

    References
    ----------
    McCandlish et al., An Empirical Model of Large-Batch Training, arXiv:1812.06162, Section 2.2 and Appendix A.
    Naganuma et al., Adaptive Batch Sizes Using Non-Euclidean Gradient Noise Scales for Stochastic Sign and Spectral
    Descent, arXiv:2602.03001, for the noise in the dual norm of the optimiser's steps. The bounds and the interval are
    ours.

    Examples
    --------
    >>> import torch
    >>> from sklgap.monitor import BatchSizeMonitor
    >>> _ = torch.manual_seed(0)
    >>> net, loss = torch.nn.Linear(3, 1), torch.nn.MSELoss()
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    >>> monitor = BatchSizeMonitor(net, loss, every=1)
    >>> for _ in range(20):
    ...     X = torch.randn(64, 3)
    ...     y = X.sum(dim=1, keepdim=True) + torch.randn(64, 1)
    ...     optimizer.zero_grad()
    ...     loss(net(X), y).backward()
    ...     monitor.step((X, y))
    ...     optimizer.step()
    >>> monitor.state()["n_measurements"]
    20
    >>> monitor.state()["noise_scale_low"] < monitor.state()["noise_scale"]
    True

    With gradient accumulation the micro-batches are the parts:

    >>> monitor = BatchSizeMonitor(net)
    >>> optimizer.zero_grad()
    >>> for _ in range(4):
    ...     with monitor.accumulate(n_samples=16):
    ...         X = torch.randn(16, 3)
    ...         (loss(net(X), X.sum(dim=1, keepdim=True)) / 4).backward()
    >>> monitor.step()
    >>> monitor.n_measurements, monitor.batch_size
    (1, 64)
    """

    def __init__(
        self,
        module: nn.Module,
        loss: BatchLoss | None = None,
        *,
        every: int | None = None,
        parts: int = 8,
        parameters: Patterns | Mapping[str, Patterns] | None = None,
        geometry: Geometry = "euclidean",
        max_overhead: float = 0.03,
        optimizer: torch.optim.Optimizer | None = None,
        scaler: torch.amp.GradScaler | None = None,
        window: int = 100,
    ) -> None:
        check_module(module)
        check_in_reach(module, optimizer)
        check_integer("every", every, or_none=True)
        check_integer("parts", parts, 2)
        check_fraction("max_overhead", max_overhead, above=0.0)
        check_integer("window", window, 2 * LEAST_STRETCHES)
        check_sizes(window=window)
        if not isinstance(geometry, str) or geometry not in get_args(Geometry):
            raise ValueError(f"geometry must be 'euclidean', 'adam' or 'l1'; got {shown(geometry)}.")
        if (geometry == "adam") != (optimizer is not None):
            raise ValueError(
                "optimizer must be given with geometry='adam', which reads its second moments, and only with this "
                "geometry."
            )
        self._outer, self.module = module, unwrapped(module)
        self.every, self.parts, self.geometry, self.max_overhead = every, int(parts), geometry, float(max_overhead)
        self.optimizer, self.scaler, self.window = optimizer, scaler, int(window)
        self._loss = loss_of_batch(loss)
        self._in_samples = counts_in_samples(loss)
        self._patterns = parameters
        self._params, self._groups = _groups(self.module, parameters)
        self._trained = _trained(self.module)
        self._records: deque[tuple[float, np.ndarray]] = deque(maxlen=self.window)
        self._counted: deque[tuple[float, int]] = deque(maxlen=self.window)
        self._tokens = False  # whether a callback counts something other than samples in ``n_samples``
        self._clock = Clock(self.max_overhead)
        self._open: _Accumulated | None = None
        self._n_updates = 0
        # If a larger batch came before, a batch that is too short for its parts ends an epoch, and is skipped.
        self._largest = 0
        self._lenient = False  # Callbacks skip updates with unequal micro-batches.
        self.n_measurements, self.n_skipped = 0, 0
        self.batch_size: int | None = None

    # -- measuring --------------------------------------------------------------------------------------------------

    def step(self, batch: Any = None) -> None:
        """Measure an update if a measurement is due.

        The monitor computes the gradients of the parts of the batch at the current weights of the module.

        Parameters
        ----------
        batch : object, default=None
            The batch of this update, in the form that ``loss`` takes. None means that the update consists of the
            micro-batches measured by `accumulate`, and that it is complete.
        """
        if batch is None:
            if self._open is None:
                raise ValueError("batch must be given unless accumulate has measured micro-batches; got None.")
            self._close()
            return
        if self._open is not None:
            raise ValueError("batch must be None if accumulate has measured the micro-batches of this update.")
        if self._loss is None:
            raise ValueError("loss must be given to BatchSizeMonitor if step gets a batch; got None.")
        due = self._clock.due() if self.every is None else self._n_updates % self.every == 0
        self._n_updates += 1
        self._largest = max(self._largest, number_of_rows(batch))
        if due:
            with self._clock.running():
                self._measure(batch)

    def _measure(self, batch: Any) -> None:
        n = number_of_rows(batch)
        if n < 2 * self.parts <= self._largest:
            self.n_skipped += 1
            return
        if n < 2 * self.parts:
            raise ValueError(
                f"batch must have at least 2 samples for each of the parts={self.parts}; got {n} samples; use fewer "
                "parts."
            )
        self._check_forward()
        if self._is_other():
            self._begin_again()
        weights = self._weights()
        if weights is None:
            self.n_skipped += 1
            return
        total = [torch.zeros_like(real(p), dtype=wide(p)) for p in self._params.values()]
        signs = SignSums(total) if self.geometry == "l1" else None
        squares, masses, n_parts = np.zeros(len(self._params)), 0.0, 0
        for part in parts_of(batch, n, self.parts):
            mass, gradients = self._gradients(part)
            mass = mass if mass is not None else number_of_rows(part)
            if not mass:  # all targets are ignored
                continue
            n_parts += 1
            norms = squared_norms(gradients, weights)
            if not np.isfinite(norms).all():
                if self.scaler is None and not _lacks_v(norms, weights):
                    raise ValueError(
                        "The gradient must be finite to be measured; it is not finite on a part of the batch."
                    )
                self.n_skipped += 1
                return
            squares += mass * norms
            masses += mass
            if signs is not None:
                signs.add(mass, gradients)
                continue
            for sum_, gradient in zip(total, gradients, strict=True):
                sum_.add_(gradient, alpha=mass)
        if n_parts < 2:
            self.n_skipped += 1
            return
        unit = n / masses if self._in_samples else 1.0
        mass_in_all = float(n) if self._in_samples else masses
        if signs is not None:
            self._record(self._by_group(signs.by_parameter() * [math.sqrt(unit), 1, 1]), mass_in_all, n)
            return
        mean = self._by_group(squared_norms(total, weights) / masses**2)
        self._add(self._by_group(squares) * unit, mean, mass_in_all, n_parts, n)

    def _gradients(self, part: Any) -> tuple[float | None, list[Tensor]]:
        """Return the weight of the part, None if the loss returns no weight, and its unscaled gradients."""
        assert self._loss is not None
        check_gradients_allowed()
        scale = self._scale()
        with unchanged(self.module, self._params), torch.enable_grad():
            versions = [p._version for p in self.module.parameters()]
            loss = self._loss(self.module, part)
            if versions != [p._version for p in self.module.parameters()]:
                raise ValueError(f"module {_CHANGES_ITSELF}")
            if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
                raise ValueError("loss must return a scalar tensor that depends on the parameters of the module.")
            value, mass = float(loss.detach()), self._loss.weight
            if mass is not None and not 0 <= mass < math.inf:
                raise ValueError(f"loss must return a weight of the batch that is a number of at least 0; got {mass}.")
            if not math.isfinite(value) and mass != 0:
                raise ValueError(f"The loss must be finite to be measured; it is {value} on a part of the batch.")
            found = gradients_of(loss * scale, list(self._params.values()), allow_unused=True)
        gradients = [
            torch.zeros_like(real(p), dtype=wide(p))
            if g is None
            else dense(g, p)
            if scale == 1
            else dense(g, p) / scale
            for g, p in zip(found, self._params.values(), strict=True)
        ]
        return mass, gradients

    def _check_forward(self) -> None:
        if _renorms(self.module):
            raise ValueError(f"module {_CHANGES_ITSELF}")

    def _is_other(self) -> bool:
        """Return whether the module now trains other parameters than the measured ones."""
        now = _trained(self.module)
        return len(now) != len(self._trained) or any(a is not b for a, b in zip(now, self._trained, strict=True))

    def _begin_again(self) -> None:
        """Start an empty window for the parameters that are trained now, because their noise is different."""
        self._params, self._groups = _groups(self.module, self._patterns)
        self._trained = _trained(self.module)
        self._records.clear()
        self._counted.clear()

    @contextlib.contextmanager
    def accumulate(self, n_samples: int) -> Iterator[None]:
        """Measure the gradient of a micro-batch. Put this context around the ``backward`` of the micro-batch.

        The sum over the micro-batches must be the gradient of all samples, up to a factor; `check_accumulation` tests
        this. An update ends with ``step()``, or when the gradients have been cleared. Clip gradients only after the
        last micro-batch.

        With ``DistributedDataParallel``, ``module`` must be the wrapped module. Then every micro-batch of every process
        is a part, so one micro-batch in each process is enough. Every process must have the same number of samples in
        an update, and must end the update with ``step()``, in which the processes exchange a few numbers. All
        micro-batches but the last may be inside ``no_sync()``.

        Parameters
        ----------
        n_samples : int
            Number of samples of the micro-batch in this process.
        """
        check_integer("n_samples", n_samples)
        if self.geometry == "l1":
            raise ValueError("geometry must be 'euclidean' or 'adam' for accumulate; got 'l1'; use step(batch).")
        self._check_sums()
        averaging = averaging_of(self._outer)
        if self._is_other():
            self._open = None
            self._begin_again()
        uniform: list[Tensor | None] = [None] * len(self._params)
        goes_on = self._open is not None and self._open.is_followed_by(self._params.values())
        before = np.zeros(len(self._params)) if goes_on else self._standing(uniform)
        if not goes_on and not before.any():
            if self._open is not None:
                if averaging is not None:  # all processes must exchange their numbers at the same point
                    raise ValueError("step() must be called after the last micro-batch of an update in all processes.")
                self._close()
            due = self.every is None or self._n_updates % self.every == 0
            self._open = _Accumulated(due, self._scale())
        elif self._open is None:
            raise ValueError(
                "The gradient must be cleared before the first micro-batch of an update; call optimizer.zero_grad()."
            )
        elif not goes_on:
            raise ValueError(
                "The gradient must not change between the micro-batches of an update, but it did; clip and unscale "
                "after the last micro-batch."
            )
        open_ = self._open
        if goes_on and not _renorms(self.module) and open_.has_been_used(self._params.values()):
            raise ValueError(
                "The parameters must not change between the micro-batches of an update, but they did; after "
                "optimizer.step(), call monitor.step() and optimizer.zero_grad()."
            )
        if open_.due and open_.weights is None:
            open_.weights = self._weights()
        params, weights = list(self._params.values()), open_.weights

        def square(i: int, gradient: Tensor) -> Tensor:
            return squared_norm(gradient, weights[i] if weights is not None else None)

        with seen(params, square, active=weights is not None) as found:
            yield
        if all(p.grad is None for p in params) or (weights is not None and not found):
            raise ValueError("There is no gradient yet; call backward inside monitor.accumulate.")
        if weights is not None:
            zero = torch.zeros((), dtype=wide(params[0]))
            open_.squares.append(as_array([found.get(i, zero) for i in range(len(params))]) / n_samples)
            open_.total = self._standing(weights)
        open_.sizes.append(int(n_samples))
        open_.left = [None if p.grad is None else (p.grad, p.grad._version, p._version) for p in params]
        smallest = min((p for p in params if p.grad is not None), key=Tensor.numel)
        open_.smallest = (smallest, smallest.detach().clone())

    def _check_sums(self) -> None:
        """Raise a ValueError if ``.grad`` is not the sum of the gradients of the micro-batches up to rounding."""
        late = accumulation_hooked_parameter(self.module)
        if late is not None:
            raise ValueError(
                "module must not have post-accumulate hooks inside accumulate(), because they may change the sum of "
                f"gradients; got one on the parameter {late!r}; use step(batch)."
            )
        low = next((p.dtype for p in self._params.values() if p.dtype in (torch.float16, torch.bfloat16)), None)
        if low is not None:
            raise ValueError(
                f"module must have parameters in float32 for accumulate, which reads the sum of gradients; got {low}; "
                "use step(batch)."
            )

    def _scale(self) -> float:
        return float(self.scaler.get_scale()) if self.scaler is not None else 1.0

    def _standing(self, weights: Sequence[Tensor | None]) -> np.ndarray:
        """Return the squared norm of the current ``.grad`` of each parameter."""
        params = list(self._params.values())
        zero = torch.zeros((), dtype=wide(params[0]))
        return as_array(
            [zero if p.grad is None else squared_norm(p.grad.detach(), w) for p, w in zip(params, weights, strict=True)]
        )

    def _close(self) -> None:
        open_, self._open = self._open, None
        assert open_ is not None
        self._n_updates += 1
        if not open_.due:
            return
        if open_.total is None:
            self.n_skipped += 1
            return
        n, k = sum(open_.sizes), len(open_.sizes)
        squares, total = self._by_group(np.sum(open_.squares, axis=0)), self._by_group(open_.total)
        equal = len(set(open_.sizes)) == 1
        averaging = averaging_of(self._outer)
        if averaging is not None:
            ns, ks, squares = of_all_processes(averaging, n, k, squares, total)
            if len(set(ns)) > 1 and not self._lenient:
                raise ValueError(
                    "n_samples must be the same in all processes, because the average counts them equally; got "
                    f"{[int(size) for size in ns]} in an update."
                )
            equal = equal and len(set(ns)) == len(set(ks)) == 1
            # The average over the processes contains the gradient of a micro-batch divided by the number of processes.
            squares = squares / len(ns) ** 2
            n, k = int(ns.sum()), int(ks.sum())
        finite = bool(np.isfinite(total).all() and np.isfinite(squares).all())
        if not finite and self.scaler is None and not _lacks_v(open_.total, open_.weights or []):
            raise ValueError("The gradient must be finite to be measured; it is not finite in this update.")
        if k < 2 or not finite or (self._lenient and not equal):
            self.n_skipped += 1
            return
        # A micro-batch adds n_k g_k / N, so n_k |g_k|^2 = N^2 |added|^2 / n_k. A scale of the loss cancels in the noise
        # scale; the other numbers are divided by it.
        scale = open_.scale**2
        self._add(n**2 * squares / scale, total / scale, n, k, n)

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        return np.array([values[members].sum(axis=0) for members in self._groups.values()])

    def _add(self, squares: np.ndarray, mean: np.ndarray, mass: float, k: int, n: int) -> None:
        """Record (trace, squared norm) of every group, computed from sum n_k |g_k|^2 and |mean g|^2."""
        rows = []
        for total, square in zip(squares.tolist(), mean.tolist(), strict=True):
            trace = max(0.0, (total - mass * square) / (k - 1))
            rows.append((trace, square - trace / mass))
        self._record(np.array(rows), mass, n)

    def _record(self, rows: np.ndarray, mass: float, n: int) -> None:
        self._records.append((mass, rows))
        self._counted.append((mass, n))
        self.n_measurements += 1
        self.batch_size = n

    def _weights(self) -> list[Tensor | None] | None:
        """Return the weights of the coordinates of each parameter, or None if Adam has no v for any parameter yet.

        An entry None means weight 1 for all coordinates. A parameter without a gradient so far has no v; its gradient
        must be 0 in a measured update.
        """
        if self.optimizer is None:
            return [None] * len(self._params)
        groups = {id(p): group for group in self.optimizer.param_groups for p in group["params"]}
        found: list[Tensor | None] = []
        for name, p in self._params.items():
            if id(p) not in groups:
                raise ValueError(f"optimizer must train all measured parameters; it does not contain {name!r}.")
            state, group = self.optimizer.state.get(p, {}), groups[id(p)]
            # If the first update overflows under a scaler, v is 0 after 0 steps.
            if not state or ("step" in state and not float(state["step"])):
                found.append(NO_V)
                continue
            v = state.get("max_exp_avg_sq") if group.get("amsgrad") else state.get("exp_avg_sq")
            if not isinstance(v, Tensor) or "betas" not in group or "eps" not in group or v.shape != p.shape:
                raise ValueError(
                    "optimizer must be Adam, or store exp_avg_sq in the same way, for geometry='adam'; got "
                    f"{type(self.optimizer).__name__}."
                )
            correction = 1 - group["betas"][1] ** float(state["step"])
            weight = 1 / ((v.to(wide(p)) / correction).sqrt() + group["eps"])
            found.append(weight.unsqueeze(-1) if p.is_complex() else weight)
        return None if all(weight is NO_V for weight in found) else found

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def counts_samples(self) -> bool:
        """Whether the noise scale is a number of samples. It is False if ``loss`` weights count tokens or the like."""
        return not self._tokens and all(mass == n for mass, n in self._counted)

    def state(self) -> dict[str, float]:
        """Return the estimates as a flat dict of numbers, for any logger.

        Returns
        -------
        dict
            The keys are ``noise_scale``; ``noise_scale_low`` and ``noise_scale_high``, the ends of the 95 % interval;
            ``trace``; ``squared_gradient_norm``, which may be negative if noise prevails; and ``n_effective``, the
            number of independent measurements that the window is worth. For every group of parameters the same keys end
            in ``/group``. Further keys are ``batch_size``, ``n_window``, ``n_measurements`` and ``n_skipped``.
            Estimates are NaN before the first measurement. With ``geometry="l1"``, ``noise_l1``, ``gradient_l1_least``
            and ``gradient_l1_most`` replace trace and squared norm.
        """
        found: dict[str, float] = {}
        estimate = sign_noise_scale_of if self.geometry == "l1" else noise_scale_of
        for i, name in enumerate(self._groups):
            tail = "" if name == _ALL else f"/{name}"
            values = estimate(np.array([rows[i] for _, rows in self._records]))
            found.update({key + tail: value for key, value in values.items()})
        found["batch_size"] = math.nan if self.batch_size is None else self.batch_size
        found["n_window"] = len(self._records)
        found["n_measurements"], found["n_skipped"] = self.n_measurements, self.n_skipped
        return found

    def verdict(self) -> str:
        """Return a few sentences on what the noise scale says about the current batch size."""
        if not self._records:
            return "Nothing has been measured yet. Continue the training."
        # The last batch of an epoch may be short, so the larger one of two successive batches has the current batch
        # size.
        state, size = self.state(), max(mass for mass, _ in list(self._records)[-2:])
        knee, low, high = state["noise_scale"], state["noise_scale_low"], state["noise_scale_high"]
        notes = "This is about speed, not about accuracy."
        if self.geometry == "adam":
            notes = f"Measured in the geometry of Adam. {notes}"
        if self.geometry == "l1":
            notes = f"For optimisers that step by signs, the interval covers the bias of both bounds. {notes}"
        if any(isinstance(part, _BATCH_NORM) and part.training for part in self.module.modules()):
            notes = f"Under batch norm each part has its own statistics, which biases the noise scale. {notes}"
        if not math.isfinite(high) or not math.isfinite(knee):
            # The lower end is infinite if the squared gradient is below 0 by more than chance. Then the parts are not
            # random draws.
            least = f"above {_number(low)}" if 0 < low < math.inf else "not determined"
            return (
                f"At a batch size of {_number(size)}, the noise scale (the knee) is {least} (95 %). Measure longer to "
                f"find its upper end. {notes}"
            )
        saved = 1 - (1 + knee / (2 * size)) / (1 + knee / size)
        if self.geometry == "l1":
            saved = sign_saving(knee, size)
        doubling = (
            "each doubling still nearly halves the number of updates"
            if saved > 0.4
            else f"a doubling saves {'only ' if saved < 0.1 else ''}{100 * saved:.0f} % of the updates"
        )
        # A batch size of four times the knee needs five times as many samples as the smallest batch sizes.
        wasted = _number(4 * knee, 1)
        return (
            f"At a batch size of {_number(size)}, {doubling}. The noise scale (the knee) is about {_number(knee)}, "
            f"with a 95 % interval from {_number(low)} to {_number(high)}. Beyond a batch size of {wasted}, more "
            f"samples are mostly wasted. {notes}"
        )


class _Accumulated:
    """The sums over the micro-batches of an update that is not complete yet."""

    def __init__(self, due: bool, scale: float) -> None:
        self.sizes: list[int] = []
        self.squares: list[np.ndarray] = []
        self.total: np.ndarray | None = None
        self.weights: list[Tensor | None] | None = None
        # The ``.grad`` tensors after the last micro-batch, each with its version (how often it had been written to) and
        # the version of its parameter.
        self.left: list[tuple[Tensor, int, int] | None] | None = None
        # The smallest parameter with a gradient, and its values after the last micro-batch.
        self.smallest: tuple[Tensor, Tensor] | None = None
        self.due, self.scale = due, scale

    def is_followed_by(self, params: Iterable[Tensor]) -> bool:
        """Return whether the gradients are unchanged since the last micro-batch, without reading their values."""
        if self.left is None:
            return False
        return all(
            p.grad is None if left is None else p.grad is left[0] and left[0]._version == left[1]
            for p, left in zip(params, self.left, strict=True)
        )

    def has_been_used(self, params: Iterable[Tensor]) -> bool:
        """Return whether an optimiser has changed the parameters since the last micro-batch.

        An optimiser changes all parameters with a gradient, a module that changes its parameters only some of them.
        """
        used = [p._version != left[2] for p, left in zip(params, self.left or [], strict=True) if left is not None]
        if any(used):
            return all(used)
        # A fused optimiser, or one that writes to ``.data``, leaves the versions as they are.
        return self.smallest is not None and not torch.allclose(*self.smallest, rtol=0, atol=0, equal_nan=True)


def _renorms(module: nn.Module) -> bool:
    """Return whether the module changes its parameters in its forward pass, as ``Embedding(max_norm=...)`` does."""
    return any(getattr(part, "max_norm", None) is not None for part in module.modules())


def _number(value: float, digits: int = 2) -> str:
    """Return a number as text, rounded to ``digits`` digits, with commas. Small whole numbers are not rounded."""
    if value == round(value) and digits > 1:
        return f"{value:,.0f}"
    if value <= 0:
        return "0"
    rounded = round(value, digits - 1 - math.floor(math.log10(value)))
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def _groups(
    module: nn.Module, parameters: Patterns | Mapping[str, Patterns] | None
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Return the measured parameters by name, and for every group the positions of its parameters among them."""
    grouped = parameters if isinstance(parameters, Mapping) else {}
    if isinstance(parameters, Mapping):
        if not parameters or not all(isinstance(name, str) and name and name != _ALL for name in parameters):
            raise ValueError(
                f"parameters must be a non-empty dict {{group: patterns}} whose keys are strings other than 'all'; "
                f"got {shown(parameters)}."
            )
        members = {name: trainable_parameters(module, patterns) for name, patterns in parameters.items()}
        chosen = {name for group in members.values() for name in group}
        params = {name: p for name, p in trainable_parameters(module).items() if name in chosen}
    else:
        params, members = trainable_parameters(module, parameters), {}
    if not params:
        raise ValueError("module must have at least one trainable parameter; got 0.")
    place = {name: i for i, name in enumerate(params)}
    groups = {_ALL: list(place.values())}
    groups.update({name: [place[p] for p in members[name]] for name in grouped})
    return dict(params), groups


def _lacks_v(norms: np.ndarray, weights: Sequence[Tensor | None]) -> bool:
    """Return whether a parameter has its first gradient, so that Adam has no v for it yet."""
    return any(weight is NO_V and norm > 0 for weight, norm in zip(weights, norms, strict=False))


def _trained(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]
