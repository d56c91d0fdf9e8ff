"""The forward pass of a module compiled by ``torch.compile``, or the module itself if it cannot be compiled.

The module never changes, because the compiled object is a function that calls it. Compiled code is first tried on
copies, and it is used only if it gives the outputs, gradients and buffers of the module itself.
"""

import contextlib
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sklgap._checks import WrongArgument, shown
from sklgap._random import undisturbed
from sklgap._threads import is_forked
from sklgap.objective._autodiff import gradients_of
from sklgap.objective._copy import deepcopy
from sklgap.objective._outputs import logits_of

Options = Mapping[str, Any]

# Compiled code adds in another order, and it may round once where the module rounds twice. The tolerance is relative to
# the norm of all numbers together. bfloat16 has 8 bits, float16 has 11.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_GRADIENTS = "the compiled code gives other gradients"
# Code is compiled for at most this many shapes of inputs, because each shape takes seconds and texts have many lengths.
MAX_SHAPES = 8


class CompileWarning(UserWarning):
    """A net is evaluated without ``torch.compile`` although ``compile`` asks for it. The results are still correct.

    Examples
    --------
    >>> import warnings
    >>> from sklgap.objective import CompileWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", CompileWarning)  # fit, or measure, in here
    """


def check_compile(compile: Any) -> dict[str, Any] | None:
    """Return the complete options of ``torch.compile``, or None if nothing is compiled.

    Parameters
    ----------
    compile : bool or dict
        True means the options in Notes. A dict adds options or replaces these.

    Notes
    -----
    With ``fullgraph=True``, a module that cannot be compiled as a whole is not compiled. With ``dynamic=False``, the
    code is for one shape only, so it does not depend on earlier shapes. With the default backend, dropout draws the
    same numbers as without ``compile``.
    """
    if isinstance(compile, bool):
        given: dict[str, Any] = {}
        if not compile:
            return None
    elif isinstance(compile, Mapping):
        given = dict(compile)
    else:
        raise WrongArgument(f"compile must be True, False or a dict of options of torch.compile; got {shown(compile)}.")
    if given.get("mode") is not None and given.get("options") is not None:
        raise ValueError("compile must have either 'mode' or 'options' of torch.compile; got both.")
    return {"fullgraph": True, "dynamic": False, **given}


class CompiledCalls(nn.Module):
    """A module that calls compiled code of another module if possible, and otherwise the module itself.

    Parameters
    ----------
    module : nn.Module
        The module, which is called with the parameters that it holds at the time.
    options : dict
        Options of ``torch.compile``, as `check_compile` returns them.
    sizes : iterable of int
        Batch sizes for which code is compiled. The module evaluates all other sizes. Ignored with ``dynamic=True``.

    Notes
    -----
    Which evaluations are compiled depends on the shapes of the inputs, not on earlier evaluations. If code cannot be
    compiled, or differs from the module, one `CompileWarning` says so, and the module is called.
    """

    def __init__(self, module: nn.Module, options: Options, sizes: Iterable[int] = ()) -> None:
        super().__init__()
        self.module = module
        self.options = options
        self.sizes = set(sizes)
        self.dynamic = options["dynamic"] is not False
        self._code: dict[Any, Callable[..., Any] | None] = {}
        self._warned = False
        self._hooks = [held for part in module.modules() for held in _hooks_of(part)]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module returns."""
        key = self._key(args, kwargs)
        if key is None:
            return self.module(*args, **kwargs)
        if any(self._hooks):
            self._warn("the net has hooks, which compiled code would not call")
            return self.module(*args, **kwargs)
        if any(t.requires_grad for t in (*args, *kwargs.values()) if isinstance(t, Tensor)):
            self._warn(
                "a remedy takes gradients with respect to the inputs, and compiled code has one backward pass only"
            )
            return self.module(*args, **kwargs)
        if is_forked():  # also if code was compiled before, because it waits for the threads that it ran with
            self._warn("this process was forked, and compiled code would wait for threads of its parent")
            return self.module(*args, **kwargs)
        if key not in self._code:
            self._code[key] = self._compiled(args, kwargs)
        code = self._code[key]
        if code is not None:
            try:
                return code(self.module, args, kwargs)
            except Exception as error:  # an error of the module is raised as it is
                if not _is_of_compiler(error):
                    raise
                # torch compiled again, for example because a parameter is frozen now. Nothing is evaluated yet.
                self._code[key] = None
                self._warn(_reason(error))
        return self.module(*args, **kwargs)

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the key of the compiled code for these inputs; None if the module evaluates them."""
        inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        how = self.module.training, torch.is_grad_enabled(), *[(t.dtype, t.ndim) for t in inputs]
        if self.dynamic:
            return how
        if not inputs or not inputs[0].ndim or len(inputs[0]) not in self.sizes:
            return None
        key = how, *[t.shape for t in inputs]
        if key not in self._code and len(self._code) >= MAX_SHAPES:
            self._warn(
                f"the inputs have more than {MAX_SHAPES} shapes; compile__dynamic=True compiles one code for all shapes"
            )
            return None
        return key

    def _compiled(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[..., Any] | None:
        """Return compiled code that agrees with the module; warn and return None if there is no such code."""
        try:
            with _undisturbed(args, kwargs), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # warnings of the compiler about itself
                code = _code(self.options)
                differs = _difference(code, self.module, args, kwargs)
                if differs == _GRADIENTS and _equal_in_float64(_code(self.options), self.module, args, kwargs):
                    differs = None
        except Exception as error:  # a missing compiler or a user's module may raise anything
            differs = _reason(error)
        if differs is None:
            return code
        self._warn(differs)
        return None

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"compile: the net is evaluated without torch.compile, because {reason}.", CompileWarning, 2)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the code, which is compiled again when it is needed."""
        return {**vars(self), "_code": {}}


def _call(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return module(*args, **kwargs)


def _function() -> Callable[..., Any]:
    """Return `_call` with a new code object. torch stores compiled code with this object and drops both together."""
    return types.FunctionType(_call.__code__.replace(), globals())


def _with_equal_draws(options: Options) -> dict[str, Any]:
    """Return options with which the default backend draws the same random numbers as torch without it."""
    settled = dict(options)
    if settled.get("backend", "inductor") == "inductor":
        from torch._inductor import list_mode_options  # loads the compiler

        mode = settled.pop("mode", None)
        of_mode = list_mode_options(mode) if mode else {}
        settled["options"] = {"fallback_random": True, **of_mode, **(settled.get("options") or {})}
    return settled


def _hooks_of(part: nn.Module) -> list[Any]:
    return [part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks]


def _is_of_compiler(error: BaseException) -> bool:
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def _reason(error: BaseException) -> str:
    error = getattr(error, "inner_exception", error)  # a backend stores its own error here
    text = str(error).strip().partition("\n")[0].rstrip(". ")
    return f"torch.compile raises {type(error).__name__}: {text}"


@contextlib.contextmanager
def _undisturbed(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Restore all global random states after the block, including those of the devices."""
    devices = {t.device for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t.device.type == "cuda"}
    with torch.random.fork_rng(devices), undisturbed():
        yield


def _code(options: Options) -> Callable[..., Any]:
    return torch.compile(_function(), **_with_equal_draws(options))


def _equal_in_float64(
    code: Callable[..., Any], module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bool:
    """Say whether code that gives other gradients gives the same gradients in float64.

    Rounding can switch a ReLU on or off, or move a maximum to another unit, and the gradient then jumps. Among millions
    of units this happens to a few in float32. In float64 the rounding errors are too small for it.
    """

    def exact(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    kinds = {t.device.type for t in (*args, *kwargs.values()) if isinstance(t, Tensor)}
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, enabled=False))
        wide = deepcopy(module).double()
        args, kwargs = tuple(map(exact, args)), {name: exact(value) for name, value in kwargs.items()}
        return _difference(code, wide, args, kwargs) is None


def _difference(
    code: Callable[..., Any], module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | None:
    """Return what compiled code gets wrong; None if it agrees with the module."""
    plain, found = (_evaluated(function, _twin(module), args, kwargs) for function in (_call, code))
    # Outputs and buffers come first, because gradients may differ for another reason (`_equal_in_float64`).
    for name, i in {"outputs": 0, "buffers": 2, "gradients": 1}.items():
        for a, b in zip(plain[i], found[i], strict=True):
            if a.shape != b.shape or a.dtype != b.dtype or not _close(a, b):
                return _GRADIENTS if name == "gradients" else f"the compiled code gives other {name}"
    return None


def _close(a: Tensor, b: Tensor) -> bool:
    if a.dtype not in _TOLERANCE:
        return torch.equal(a, b)
    kind = a.device.type
    # Under autocast, gradients in float32 come from products in the lower precision.
    computed_in = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else a.dtype
    a, b = (torch.nan_to_num(t.to(torch.promote_types(t.dtype, torch.float32))) for t in (a, b))
    return float((a - b).norm()) <= _TOLERANCE[computed_in] * float(a.norm())


def _evaluated(
    function: Callable[..., Any], module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return outputs, gradients and buffers after one evaluation.

    The gradients are one vector, because some of them are only rounding errors.
    """
    with undisturbed(seed=0):
        for device in {t.device for t in args if isinstance(t, Tensor) and t.device.type == "cuda"}:
            torch.cuda.default_generators[device.index or 0].manual_seed(0)
        outputs = logits_of(function(module, args, kwargs))
        gradients: list[Tensor] = []
        if outputs.requires_grad:
            leaves = [p for part in module.modules() for p in part._parameters.values() if p is not None]
            leaves = [p for p in leaves if p.requires_grad]
            found = gradients_of(outputs.square().mean(), leaves, allow_unused=True) if leaves else ()
            gradients = [
                torch.cat(
                    [torch.view_as_real(g).flatten() if g.is_complex() else g.flatten() for g in found if g is not None]
                    or [outputs.new_zeros(1)]
                )
            ]
    return [outputs.detach()], gradients, [b for b in module.buffers()]


def _twin(module: nn.Module) -> nn.Module:
    """Return a copy whose parameters are leaves and require gradients if those of the module do."""
    twin = deepcopy(module)
    for part, own in zip(twin.modules(), module.modules(), strict=True):
        for name, p in own._parameters.items():
            if p is not None and p.requires_grad:
                held = part._parameters[name]
                assert held is not None
                held.requires_grad_()
    return twin
