"""The origin of an error, read from its traceback."""

import dis
from types import TracebackType


def innermost(error: BaseException) -> TracebackType | None:
    """Return the last entry of the traceback: where the error was raised, or where a C function was called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def raised_by_code(error: BaseException) -> bool:
    """Say whether a ``raise`` in the code raised the error; the interpreter itself raises Ctrl-C."""
    trace = innermost(error)
    return trace is not None and dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
