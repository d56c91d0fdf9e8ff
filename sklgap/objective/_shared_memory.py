"""Parameters that share their memory with another tensor of the module, although the two are different objects."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


class _Piece(NamedTuple):
    """A parameter or buffer, and its range of memory: the device, and the first byte and the one after the last."""

    device: str
    start: int
    stop: int
    number: int
    name: str
    tensor: Tensor
    is_buffer: bool


def check_memory(module: nn.Module, moving: Collection[str], name: str = "module") -> None:
    """Raise a ValueError if a parameter shares memory with another parameter or with a buffer.

    A step would move both, but a copy of the module, or other values of one of them, would separate them. Parameters
    that are different views of one tensor are allowed, because they have no number in common.

    Parameters
    ----------
    module : nn.Module
        The module.
    moving : collection of str
        Names of the parameters that are trained or measured. Tensors that are constant may share memory.
    name : str, default="module"
        Name of the module in the error.
    """
    moves = set(moving)
    before: list[_Piece] = []
    # Sorted by address, a piece can only overlap with the earlier ones that have not ended yet.
    for piece in sorted(_pieces(module), key=lambda piece: piece[:4]):
        before = [other for other in before if other.device == piece.device and other.stop > piece.start]
        for other in before:
            pair = [p for p in (other, piece) if not p.is_buffer and p.name in moves]
            if pair and _overlap(other, piece):
                first, second = sorted((other, piece), key=lambda piece: piece.number)
                raise ValueError(_refusal(first, second, name))
        before.append(piece)


def _refusal(first: _Piece, second: _Piece, name: str) -> str:
    """Return the error for two tensors, the first of which is a parameter."""
    if second.is_buffer:
        return (
            f"{name} must not have a buffer in the memory of a parameter, because a step would change both; got the "
            f"buffer {second.name!r} in the memory of {first.name!r}; register a copy (.detach().clone()) instead."
        )
    same = _layout(first) == _layout(second)
    advice = (
        f"assign the same Parameter to both, {second.name} = {first.name}"
        if same
        else "compute one from the other in the forward pass, or copy the data of one of them"
    )
    return (
        f"{name} must not have two parameters in the same memory, because a step would change both; got "
        f"{first.name!r} and {second.name!r}; {advice}."
    )


def _layout(piece: _Piece) -> tuple[Any, ...]:
    return piece.start, piece.tensor.shape, piece.tensor.stride(), piece.tensor.dtype


def _pieces(module: nn.Module) -> Iterator[_Piece]:
    listed: list[tuple[str, Tensor, bool]] = [(name, p, False) for name, p in module.named_parameters()]
    listed += [(name, b, True) for name, b in module.named_buffers()]
    for number, (name, tensor, is_buffer) in enumerate(listed):
        place = _place_of(tensor)
        if place is not None:
            yield _Piece(*place, number, name, tensor, is_buffer)


def _place_of(tensor: Tensor) -> tuple[str, int, int] | None:
    """Return device, first byte and the byte after the last; None for a tensor that shows no memory."""
    if is_lazy(tensor) or tensor.layout != torch.strided or not tensor.numel():
        return None
    try:
        start = tensor.data_ptr()
        device: Any = tensor.device
        if device.type not in ("cpu", "cuda"):
            # On other devices an address may be a handle, so that only offsets in one storage can be compared.
            device = f"{device} {tensor.untyped_storage().data_ptr()}"
    except Exception:  # subclasses of tensors raise various errors
        return None
    if not start:  # meta tensors, and wrappers of other tensors
        return None
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return str(device), start, start + (last + 1) * tensor.element_size()


def _overlap(first: _Piece, second: _Piece) -> bool:
    """Say whether two tensors whose ranges overlap have a number in common, unlike two columns of one matrix."""
    if _is_dense(first) and _is_dense(second):
        return True
    if first.tensor.element_size() != second.tensor.element_size():
        return True  # a conservative answer, for example for real and complex views
    return bool(torch.isin(_addresses(first), _addresses(second)).any())


def _is_dense(piece: _Piece) -> bool:
    return piece.tensor.numel() * piece.tensor.element_size() == piece.stop - piece.start


def _addresses(piece: _Piece) -> Tensor:
    """Return the addresses of all numbers of a tensor."""
    found = torch.zeros((), dtype=torch.int64)
    for size, stride in zip(piece.tensor.shape, piece.tensor.stride(), strict=True):
        found = found.unsqueeze(-1) + stride * torch.arange(size)
    return piece.start + piece.tensor.element_size() * found.flatten()
