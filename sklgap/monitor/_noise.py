"""The gradient noise scale of a training while it runs, in anybody's loop."""

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
from sklgap.monitor._loss import BatchLoss, loss_of_batch
from sklgap.monitor._module import unchanged, unwrapped
from sklgap.monitor._norms import NO_V, as_array, dense, squared_norm, squared_norms, wide
from sklgap.monitor._sign_geometry import SignSums, sign_noise_scale_of, sign_saving
from sklgap.monitor._window import LEAST_STRETCHES, noise_scale_of
from sklgap.objective._objective import takes_module
from sklgap.objective._parameters import Patterns, real, trainable_parameters

Geometry = Literal["euclidean", "adam", "l1"]
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_ALL = "all"
_CHANGES_ITSELF = (
    "must not change its parameters in its forward pass, as Embedding(max_norm=...) does: to measure by step(batch) "
    "would change the training; use accumulate."
)


class BatchSizeMonitor:
    r"""Measures the gradient noise scale in a plain training loop: which batch size is useful for speed.

    Every measured update gives gradients :math:`g_k` of K parts of :math:`n_k` samples, N in all, with mean
    :math:`\bar g = \sum_k n_k g_k / N`, and from them unbiased estimates of the noise of a single sample and of the
    squared gradient:

    .. math:: t = \frac{1}{K - 1} \sum_k n_k \|g_k - \bar g\|^2, \qquad s = \|\bar g\|^2 - t / N

    The noise scale (the "knee") is the sum of t over the sum of s over the last ``window`` measurements, never the mean
    of ratios. The number of updates to a given loss is proportional to 1 + knee / B.

    Parameters
    ----------
    module : nn.Module
        The model that is trained, also behind ``torch.compile`` or ``DistributedDataParallel``. With that, `accumulate`
        takes the processes' own gradients for parts, and all processes have the same estimates; `step` measures in
        every process its own share of the batch.
    loss : callable, default=None
        For `step`: a criterion of (outputs, target) for batches (inputs, target), or a function ``loss(module, batch)``
        that returns the mean loss of a batch of any form, or (mean loss, weight of the batch), for example its number
        of tokens. The first argument of such a function is named ``module`` or ``model``.
    every : int, default=None
        Measure every so many updates. None: as often as ``max_overhead`` allows; with `accumulate`, every update,
        which reads its gradients twice.
    parts : int, default=8
        Parts into which `step` cuts a batch.
    parameters : str, list of str or dict, default=None
        Patterns of parameter names, as ``"encoder.*"``: measure with respect to these only. A dict
        ``{group: patterns}`` measures each group as well as all of them together. None: all that are trainable.
    geometry : {"euclidean", "adam", "l1"}, default="euclidean"
        ``"adam"``: a coordinate counts :math:`1 / (\sqrt{\hat v} + \epsilon)`, with v from ``optimizer``. ``"l1"``, for
        signSGD, Lion and the like, with `step` alone: noise and gradient in the L1 norm,
        :math:`(\sum_j \sigma_j / \sum_j |g_j|)^2`.
    max_overhead : float, default=0.03
        Share of the training time that `step` may cost with ``every=None``.
    optimizer : torch.optim.Optimizer, default=None
        Adam or one like it, for ``geometry="adam"``.
    scaler : torch.amp.GradScaler, default=None
        Of a training in half precision. Gradients are measured unscaled; those that overflow are left out.
    window : int, default=100
        Measurements that the estimate is made of.

    Attributes
    ----------
    n_measurements : int
        Updates measured so far.
    n_skipped : int
        Updates that could not be measured: a last batch of an epoch too short for its parts, a single micro-batch, an
        overflow under a ``scaler``, Adam's v not there yet, or targets that are ignored in all parts but one.
    batch_size : int or None
        Samples of the last measured update.
    counts_samples : bool
        Whether the noise scale is in samples, and not in what the weights of a ``loss`` count, such as tokens.

    Notes
    -----
    The training is bit for bit what it is without the monitor. Weights, ``.grad``, buffers, generators, mode and
    optimiser are as before after every measurement. Hooks on the module run in it, too.

    The interval is Fieller's at 95 %. Successive measurements depend on each other, so its standard errors are those
    of the means of up to 10 consecutive stretches of the window (batch means), with Student's t. Fewer than 8
    measurements give no interval. It is right where stretches are longer than the memory of the noise. A drift of the
    gradient within the window makes it wider.

    Parts are treated as independent draws. Under batch norm a part uses its own statistics, so that expected gradients
    depend on the size of the parts. Dropout counts as noise. With ``geometry="adam"`` v must not hold the measured
    gradient: call `step` before ``optimizer.step()``. Call it before in any case for an unbiased estimate: after the
    update the batch is one that the weights have just been fitted to.

    With ``geometry="l1"`` there is no unbiased estimate. The state has two bounds of :math:`\sum_j |g_j|`: the absolute
    values of the batch's gradient, too large on average, and one half of the batch times the signs of the other half,
    too small on average. Their ratio is the bias. The interval spans both, and the noise scale is the geometric mean of
    theirs.

    Where the module trains other parameters from some update on (frozen, thawed, replaced), the window begins again.

    The noise scale is a number of samples, also where class weights or ignored targets make them count differently. It
    is in the units of the weight where the ``loss`` is a function that returns one.

    A noise scale is about the speed of training. It says nothing about accuracy, and takes the Hessian for a multiple
    of the identity (McCandlish et al.): it is good for an order of magnitude.

    References
    ----------
    McCandlish et al., An Empirical Model of Large-Batch Training, arXiv:1812.06162, Section 2.2 and Appendix A.
    Naganuma et al., Adaptive Batch Sizes Using Non-Euclidean Gradient Noise Scales for Stochastic Sign and Spectral
    Descent, arXiv:2602.03001: noise in the dual norm of the optimiser's steps. The bounds and the interval are ours.

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
            raise ValueError("optimizer must be given with geometry='adam', which reads its v, and only with it.")
        self._outer, self.module = module, unwrapped(module)
        self.every, self.parts, self.geometry, self.max_overhead = every, int(parts), geometry, float(max_overhead)
        self.optimizer, self.scaler, self.window = optimizer, scaler, int(window)
        self._loss = loss_of_batch(loss)
        # The weights that a function returns may be tokens; those of a criterion depend on the scale of class weights.
        self._in_samples = loss is not None and not takes_module(loss)
        self._patterns = parameters
        self._params, self._groups = _groups(self.module, parameters)
        self._trained = _trained(self.module)
        self._records: deque[tuple[float, np.ndarray]] = deque(maxlen=self.window)
        self._counted: deque[tuple[float, int]] = deque(maxlen=self.window)
        self._tokens = False  # whether a callback counts something else in ``n_samples``
        self._clock = Clock(self.max_overhead)
        self._open: _Accumulated | None = None
        self._n_updates = 0
        self._largest = 0  # A batch too short for its parts ends an epoch where there was a larger one: left out.
        self._lenient = False  # Callbacks leave out updates of unequal micro-batches.
        self.n_measurements, self.n_skipped = 0, 0
        self.batch_size: int | None = None

    # -- measuring --------------------------------------------------------------------------------------------------

    def step(self, batch: Any = None) -> None:
        """Measure an update, if one is due: the gradients of the parts of a batch, at the module's weights.

        Parameters
        ----------
        batch : object, default=None
            The batch of this update, as ``loss`` takes it. None: the update was made of the micro-batches of
            `accumulate`, and is complete.
        """
        if batch is None:
            if self._open is None:
                raise ValueError("batch must be given, unless micro-batches were measured by accumulate; got None.")
            self._close()
            return
        if self._open is not None:
            raise ValueError("batch must be None where accumulate has measured the micro-batches of this update.")
        if self._loss is None:
            raise ValueError("loss must be given to BatchSizeMonitor where step gets a batch; got None.")
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
                f"batch must have at least 2 samples for each of the parts={self.parts}; got {n} samples: lower parts."
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
            if not mass:  # of ignored targets alone
                continue
            n_parts += 1
            norms = squared_norms(gradients, weights)
            if not np.isfinite(norms).all():
                if self.scaler is None and not _lacks_v(norms, weights):
                    raise ValueError("The gradient must be finite to be measured; it is not on a part of the batch.")
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
        """Return what the part counts for, None where the loss does not say, and its gradients, unscaled."""
        assert self._loss is not None
        scale = self._scale()
        with unchanged(self.module, self._params), torch.enable_grad():
            versions = [p._version for p in self.module.parameters()]
            loss = self._loss(self.module, part)
            if versions != [p._version for p in self.module.parameters()]:
                raise ValueError(f"module {_CHANGES_ITSELF}")
            if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
                raise ValueError("loss must return one number that depends on the parameters of the module.")
            value, mass = float(loss.detach()), self._loss.weight
            if mass is not None and not 0 <= mass < math.inf:
                raise ValueError(f"loss must return a weight of the batch that is a number of at least 0; got {mass}.")
            if not math.isfinite(value) and mass != 0:
                raise ValueError(f"The loss must be finite to be measured; it is {value} on a part of the batch.")
            found = torch.autograd.grad(loss * scale, list(self._params.values()), allow_unused=True)
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
        if any(getattr(part, "max_norm", None) is not None for part in self.module.modules()):
            raise ValueError(f"module {_CHANGES_ITSELF}")

    def _is_other(self) -> bool:
        """Say whether the module trains other parameters than those that are measured: thawed, frozen, replaced."""
        now = _trained(self.module)
        return len(now) != len(self._trained) or any(a is not b for a, b in zip(now, self._trained, strict=True))

    def _begin_again(self) -> None:
        """Measure the parameters that are trained now, in an empty window: the noise of others is another one."""
        self._params, self._groups = _groups(self.module, self._patterns)
        self._trained = _trained(self.module)
        self._records.clear()
        self._counted.clear()

    @contextlib.contextmanager
    def accumulate(self, n_samples: int) -> Iterator[None]:
        """Measure the gradient of a micro-batch: put it around the ``backward`` of the micro-batch.

        It assumes what makes accumulation right: that the sum over the micro-batches is the gradient of all samples, up
        to a factor (`check_accumulation` tests it). The update ends with ``step()``, or where the gradients have been
        cleared. Clip after the last micro-batch.

        With ``DistributedDataParallel``, which is the ``module`` then, every micro-batch of every process is a part, a
        single one in each process too. Every process must have as many samples in an update as the others, and ends it
        with ``step()``, in which the processes exchange a few numbers. All micro-batches but the last may be inside
        ``no_sync()``.

        Parameters
        ----------
        n_samples : int
            Samples of the micro-batch, of this process.
        """
        check_integer("n_samples", n_samples)
        if self.geometry == "l1":
            raise ValueError("geometry must be 'euclidean' or 'adam' for accumulate; got 'l1': use step(batch).")
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
                if averaging is not None:  # the processes must exchange their numbers at the same place
                    raise ValueError("step() must be called after the last micro-batch of an update in all processes.")
                self._close()
            due = self.every is None or self._n_updates % self.every == 0
            self._open = _Accumulated(due, self._scale())
        elif self._open is None:
            raise ValueError(
                "The gradient must be cleared before the first micro-batch of an update: call optimizer.zero_grad()."
            )
        elif not goes_on:
            raise ValueError(
                "The gradient must not change between the micro-batches of an update, and it did: clip and unscale "
                "after the last one."
            )
        open_ = self._open
        if open_.due and open_.weights is None:
            open_.weights = self._weights()
        params, weights = list(self._params.values()), open_.weights

        def square(i: int, gradient: Tensor) -> Tensor:
            return squared_norm(gradient, weights[i] if weights is not None else None)

        with seen(params, square, active=weights is not None) as found:
            yield
        if all(p.grad is None for p in params) or (weights is not None and not found):
            raise ValueError("There is no gradient yet: call backward inside monitor.accumulate.")
        if weights is not None:
            zero = torch.zeros((), dtype=wide(params[0]))
            open_.squares.append(as_array([found.get(i, zero) for i in range(len(params))]) / n_samples)
            open_.total = self._standing(weights)
        open_.sizes.append(int(n_samples))
        open_.left = [None if p.grad is None else (p.grad, p.grad._version) for p in params]

    def _check_sums(self) -> None:
        """ValueError where ``.grad`` is not the sum of what micro-batches have added, but a rounded one."""
        low = next((p.dtype for p in self._params.values() if p.dtype in (torch.float16, torch.bfloat16)), None)
        if low is not None:
            raise ValueError(
                f"module must have parameters in float32 for accumulate, which reads the sum of gradients; got {low}: "
                "use step(batch)."
            )

    def _scale(self) -> float:
        return float(self.scaler.get_scale()) if self.scaler is not None else 1.0

    def _standing(self, weights: Sequence[Tensor | None]) -> np.ndarray:
        """Return the squared norm of what stands in ``.grad`` now, by parameter."""
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
                    "n_samples must be the same in all processes, which count the same in the average; got "
                    f"{[int(size) for size in ns]} in an update."
                )
            equal = equal and len(set(ns)) == len(set(ks)) == 1
            # A micro-batch adds to the average of the processes its share of what it adds in its own.
            squares = squares / len(ns) ** 2
            n, k = int(ns.sum()), int(ks.sum())
        finite = bool(np.isfinite(total).all() and np.isfinite(squares).all())
        if not finite and self.scaler is None and not _lacks_v(open_.total, open_.weights or []):
            raise ValueError("The gradient must be finite to be measured; it is not in this update.")
        if k < 2 or not finite or (self._lenient and not equal):
            self.n_skipped += 1
            return
        # A micro-batch adds n_k g_k / N, so that n_k |g_k|^2 = N^2 |added|^2 / n_k; a scale of the loss cancels in the
        # noise scale, but is taken out for the other numbers.
        scale = open_.scale**2
        self._add(n**2 * squares / scale, total / scale, n, k, n)

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        return np.array([values[members].sum(axis=0) for members in self._groups.values()])

    def _add(self, squares: np.ndarray, mean: np.ndarray, mass: float, k: int, n: int) -> None:
        """Record sum n_k |g_k|^2 and |mean g|^2 of every group as its (trace, squared norm)."""
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
        """Return what every coordinate counts, by parameter: None for one each; None where Adam has no v yet.

        Of a parameter that has had no gradient yet there is no v either: its gradient must be 0 to be measured.
        """
        if self.optimizer is None:
            return [None] * len(self._params)
        groups = {id(p): group for group in self.optimizer.param_groups for p in group["params"]}
        found: list[Tensor | None] = []
        for name, p in self._params.items():
            if id(p) not in groups:
                raise ValueError(f"optimizer must train all measured parameters; it does not train {name!r}.")
            state, group = self.optimizer.state.get(p, {}), groups[id(p)]
            # A first update that overflowed under a scaler leaves v = 0 after 0 steps.
            if not state or ("step" in state and not float(state["step"])):
                found.append(NO_V)
                continue
            v = state.get("max_exp_avg_sq") if group.get("amsgrad") else state.get("exp_avg_sq")
            if not isinstance(v, Tensor) or "betas" not in group or "eps" not in group or v.shape != p.shape:
                raise ValueError(
                    "optimizer must be Adam or one that stores exp_avg_sq as it does, for geometry='adam'; got "
                    f"{type(self.optimizer).__name__}."
                )
            correction = 1 - group["betas"][1] ** float(state["step"])
            weight = 1 / ((v.to(wide(p)) / correction).sqrt() + group["eps"])
            found.append(weight.unsqueeze(-1) if p.is_complex() else weight)
        return None if all(weight is NO_V for weight in found) else found

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def counts_samples(self) -> bool:
        """Whether the noise scale is in samples, and not in what the weights of a ``loss`` count, such as tokens."""
        return not self._tokens and all(mass == n for mass, n in self._counted)

    def state(self) -> dict[str, float]:
        """Return the estimates as a flat dict of numbers, for any logger.

        Returns
        -------
        dict
            ``noise_scale``, ``noise_scale_low`` and ``noise_scale_high`` (95 %), ``trace``,
            ``squared_gradient_norm`` (may be negative where noise prevails), ``n_effective`` (independent measurements
            that the window is worth), the same with ``/group`` behind them for every group of parameters,
            ``batch_size``, ``n_window``, ``n_measurements`` and ``n_skipped``. Estimates are NaN before the first
            measurement. With ``geometry="l1"`` there are ``noise_l1``, ``gradient_l1_least`` and ``gradient_l1_most``
            in place of trace and squared norm.
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
        """Return in a few words what the noise scale says about the batch size in use."""
        if not self._records:
            return "Nothing has been measured yet: train on."
        # The last batch of an epoch may be a short one: of two in a row the larger is the size in use.
        state, size = self.state(), max(mass for mass, _ in list(self._records)[-2:])
        knee, low, high = state["noise_scale"], state["noise_scale_low"], state["noise_scale_high"]
        notes = "This is about speed, not about accuracy."
        if self.geometry == "adam":
            notes = f"In Adam's geometry. {notes}"
        if self.geometry == "l1":
            notes = f"For steps by signs: the interval covers the bias of both bounds. {notes}"
        if any(isinstance(part, _BATCH_NORM) and part.training for part in self.module.modules()):
            notes = f"Batch norm: a part has its own statistics, which biases the knee. {notes}"
        if not math.isfinite(high) or not math.isfinite(knee):
            # An infinite lower end: the squared gradient is below 0 by more than chance, so that parts are not draws.
            least = f"above {_number(low)}" if 0 < low < math.inf else "not determined"
            return f"{_number(size)}: the knee is {least} (95 %); measure longer for its upper end. {notes}"
        saved = 1 - (1 + knee / (2 * size)) / (1 + knee / size)
        if self.geometry == "l1":
            saved = sign_saving(knee, size)
        doubling = (
            "each doubling still nearly halves the updates"
            if saved > 0.4
            else f"a doubling saves {'only ' if saved < 0.1 else ''}{100 * saved:.0f} % of the updates"
        )
        # A batch of four knees uses five times as many samples as the smallest batches do.
        wasted = _number(4 * knee, 1)
        return (
            f"{_number(size)}: {doubling}; the knee is at about {_number(knee)} [{_number(low)}, {_number(high)}]; "
            f"beyond {wasted} more samples are mostly wasted. {notes}"
        )


class _Accumulated:
    """What the micro-batches of an update that is not complete have added so far."""

    def __init__(self, due: bool, scale: float) -> None:
        self.sizes: list[int] = []
        self.squares: list[np.ndarray] = []
        self.total: np.ndarray | None = None
        self.weights: list[Tensor | None] | None = None
        # The ``.grad`` that the last micro-batch has left, and how often each had been written to.
        self.left: list[tuple[Tensor, int] | None] | None = None
        self.due, self.scale = due, scale

    def is_followed_by(self, params: Iterable[Tensor]) -> bool:
        """Say whether the gradients are those that the last micro-batch has left: nothing reads them for that."""
        if self.left is None:
            return False
        return all(
            p.grad is None if left is None else p.grad is left[0] and left[0]._version == left[1]
            for p, left in zip(params, self.left, strict=True)
        )


def _number(value: float, digits: int = 2) -> str:
    """Return a number rounded to so many digits, with commas; small whole numbers as they are."""
    if value == round(value) and digits > 1:
        return f"{value:,.0f}"
    if value <= 0:
        return "0"
    rounded = round(value, digits - 1 - math.floor(math.log10(value)))
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def _groups(
    module: nn.Module, parameters: Patterns | Mapping[str, Patterns] | None
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Return the measured parameters by name, and the positions among them of every group."""
    grouped = parameters if isinstance(parameters, Mapping) else {}
    if isinstance(parameters, Mapping):
        if not parameters or not all(isinstance(name, str) and name and name != _ALL for name in parameters):
            raise ValueError(f"parameters must be a dict {{group: patterns}} with texts; got {shown(parameters)}.")
        members = {name: trainable_parameters(module, patterns) for name, patterns in parameters.items()}
        chosen = {name for group in members.values() for name in group}
        params = {name: p for name, p in trainable_parameters(module).items() if name in chosen}
    else:
        params, members = trainable_parameters(module, parameters), {}
    if not params:
        raise ValueError("module must have trainable parameters; it has none.")
    place = {name: i for i, name in enumerate(params)}
    groups = {_ALL: list(place.values())}
    groups.update({name: [place[p] for p in members[name]] for name in grouped})
    return dict(params), groups


def _lacks_v(norms: np.ndarray, weights: Sequence[Tensor | None]) -> bool:
    """Say whether a parameter has its first gradient, for which Adam has no v yet."""
    return any(weight is NO_V and norm > 0 for weight, norm in zip(weights, norms, strict=False))


def _trained(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]
