"""In which arithmetic a net is trained: ``precision``.

``"float32"`` leaves everything as it is. ``"bfloat16"`` evaluates the training's forward passes in `torch.autocast`:
matrix products and convolutions in bfloat16, which has the range of float32 and 8 bits in place of its 24. The outputs
are cast to float32 before the loss; weights, gradients and the optimiser's averages stay in float32. ``"tf32"`` lets
CUDA round the inputs of matrix products and convolutions to 11 bits (TensorFloat-32).

Only the training is concerned. Validation, predictions and measurements evaluate the module without all this.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, get_args

import torch
from torch import Tensor, nn

from sklgap._checks import is_one_of, shown
from sklgap._typing import Precision
from sklgap.objective._loss import Infer

# The first CUDA devices with TensorFloat-32 (Ampere).
_TF32_CAPABILITY = (8, 0)


def check_training_precision(precision: Any, device: str) -> Precision:
    """Return ``precision``; ValueError for one that is none, or that the device cannot compute in.

    Parameters
    ----------
    precision : {"float32", "tf32", "bfloat16"}
        As the user gives it.
    device : str
        Where the net is trained, not "auto".
    """
    if not is_one_of(precision, get_args(Precision)):
        allowed = ", ".join(map(repr, get_args(Precision)))
        raise ValueError(f"precision must be one of {allowed}; got {shown(precision)}.")
    kind = torch.device(device).type
    if precision == "tf32":
        if kind != "cuda" or torch.cuda.get_device_capability(device) < _TF32_CAPABILITY:
            raise ValueError(
                "precision must be 'float32' or 'bfloat16' on a device without TensorFloat-32, which CUDA devices of "
                f"compute capability 8.0 and above have; got 'tf32' for the device {str(device)!r}."
            )
        if threading.current_thread() is not threading.main_thread():
            raise ValueError(
                "precision must not be 'tf32' in a thread beside the main one, as torch's setting would reach all "
                "threads and what they measure: use processes, as n_jobs does by default."
            )
    if precision == "bfloat16":
        if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_bf16_supported()):
            raise ValueError(
                f"precision must be 'float32' on a device without bfloat16; got 'bfloat16' for the device "
                f"{str(device)!r}."
            )
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            raise ValueError(
                "precision must be 'float32' inside of torch.autocast, which would keep the weights of earlier updates "
                "in bfloat16: leave the block before fit."
            )
    return precision


def check_can_be_lowered(precision: Precision, dtype: torch.dtype) -> None:
    """Raise a ValueError where a module of this type would compute as before, whatever ``precision`` says."""
    if precision != "float32" and dtype != torch.float32:
        raise ValueError(
            f"precision must be 'float32' for a net in {str(dtype).removeprefix('torch.')}, which autocast and "
            f"TensorFloat-32 leave as it is; got {precision!r}: pass net.float()."
        )


def lowered(infer: Infer, precision: Precision, device: str) -> Infer:
    """Return (module, X) -> outputs in this precision: ``infer`` itself but for bfloat16."""
    if precision != "bfloat16":
        return infer
    kind = torch.device(device).type

    def in_bfloat16(module: nn.Module, X: Any) -> Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16):
            y_pred = infer(module, X)
        return y_pred.float()

    return in_bfloat16


def arithmetic(precision: Precision) -> contextlib.AbstractContextManager[None]:
    """Return a context in which CUDA computes in this precision; afterwards torch's settings are as before."""
    return _tf32() if precision == "tf32" else contextlib.nullcontext()


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        matmul: Any = torch.backends.cuda.matmul
        cudnn: Any = torch.backends.cudnn
        stack.enter_context(_allowed(matmul, [matmul]))
        stack.enter_context(_allowed(cudnn, [cudnn.conv, cudnn.rnn]))
        yield


@contextlib.contextmanager
def _allowed(switch: Any, parts: list[Any]) -> Iterator[None]:
    """Set ``switch.allow_tf32``, which torch keeps in step with ``fp32_precision`` of the parts, and put both back.

    The newer setting alone would not do: torch's compiler reads the older one, and torch raises an error where the two
    differ.
    """
    before = [part.fp32_precision for part in parts]
    if all(setting == "tf32" for setting in before):
        yield
        return
    try:
        older = switch.allow_tf32
    except RuntimeError:  # the user has set the parts, one of them to another value than the older setting has
        older = True
    try:
        switch.allow_tf32 = True
        yield
    finally:
        switch.allow_tf32 = older
        for part, setting in zip(parts, before, strict=True):
            part.fp32_precision = setting
