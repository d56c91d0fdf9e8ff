"""The arithmetic of the training: ``precision``.

``"float32"`` changes no setting of torch. ``"bfloat16"`` evaluates the forward passes of the training in
`torch.autocast`: matrix products and convolutions use bfloat16, which has the range of float32 and 8 of its 24 bits.
The outputs are cast to float32 before the loss. Weights, gradients and the optimiser's averages stay in float32.
``"tf32"`` lets CUDA round the inputs of matrix products and convolutions to 11 bits (TensorFloat-32).

Only training uses the lower precision. Validation, predictions and measurements do not.
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
    """Return ``precision``; raise a ValueError for an unknown value, and for one that the device does not support.

    Parameters
    ----------
    precision : {"float32", "tf32", "bfloat16"}
        The value that the user has set.
    device : str
        The device that trains the net; not "auto".
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
                "precision must not be 'tf32' outside of the main thread, because torch's setting holds for all "
                "threads and for what they measure; use processes, as n_jobs does by default."
            )
    if precision == "bfloat16" and not (kind == "cpu" or (kind == "cuda" and torch.cuda.is_bf16_supported())):
        raise ValueError(
            f"precision must be 'float32' on a device without bfloat16; got 'bfloat16' for the device {str(device)!r}."
        )
    return precision


def check_can_be_lowered(precision: Precision, dtype: torch.dtype) -> None:
    """Raise a ValueError if ``precision`` would change nothing for a module of this dtype."""
    if precision != "float32" and dtype != torch.float32:
        raise ValueError(
            f"precision must be 'float32' for a net in {str(dtype).removeprefix('torch.')}, which autocast and "
            f"TensorFloat-32 do not change; got {precision!r}; pass net.float()."
        )


def lowered(infer: Infer, precision: Precision, device: str) -> Infer:
    """Return a function (module, X) -> outputs in this precision; ``infer`` itself except for bfloat16."""
    if precision != "bfloat16":
        return infer
    kind = torch.device(device).type

    def in_bfloat16(module: nn.Module, X: Any) -> Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16):
            y_pred = infer(module, X)
        return y_pred.float()

    return in_bfloat16


def arithmetic(precision: Precision) -> contextlib.AbstractContextManager[None]:
    """Return a context in which CUDA computes in this precision, and which restores torch's settings."""
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
    """Set ``switch.allow_tf32``, which also sets ``fp32_precision`` of the parts, and restore both.

    The newer setting alone is not enough: torch's compiler reads the older one, and torch raises an error if the two
    differ.
    """
    before = [part.fp32_precision for part in parts]
    if all(setting == "tf32" for setting in before):
        yield
        return
    try:
        older = switch.allow_tf32
    except RuntimeError:  # the user has set a part to a value that differs from the older setting
        older = True
    try:
        switch.allow_tf32 = True
        yield
    finally:
        switch.allow_tf32 = older
        for part, setting in zip(parts, before, strict=True):
            part.fp32_precision = setting
