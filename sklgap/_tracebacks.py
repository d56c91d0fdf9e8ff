"""Where an error comes from, read from its traceback."""

import dis
from types import TracebackType


def innermost(error: BaseException) -> TracebackType | None:
    """Return the last entry of the traceback: where the error was raised, or the function in C was called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def raised_by_code(error: BaseException) -> bool:
    """Say whether a ``raise`` in the code raised it, rather than the interpreter between two instructions: Ctrl-C."""
    trace = innermost(error)
    return trace is not None and dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
