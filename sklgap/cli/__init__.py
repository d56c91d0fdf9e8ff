"""The command line, one file a command. The help and errors of usage need no torch."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from sklgap._version import __version__
from sklgap.cli import _options as options

# Each command and what it answers; its file has `parser` and `main`.
COMMANDS = {
    "demo": "answers all three questions on a generated data set, in about a minute (the default)",
    "curve": "how large may the batch be, for a data set or a file of yours?",
    "explain": "why does the large batch lose?",
    "compare": "the papers' tables for several regimes",
    "sharpness": "the sharpness of saved weights",
    "memory": "lists or removes saved work",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser that knows the names of the commands."""
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    p = options.Parser(
        prog="python -m sklgap",
        description="How large can a batch be before accuracy drops, why does it drop, and what wins it back?\n\n"
        "commands:\n" + "\n".join(lines) + "\n\n"
        "Each command has its own help: python -m sklgap curve --help\n"
        "For a table of your own: python -m sklgap curve data.csv --target COLUMN",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("command", nargs="?", choices=list(COMMANDS), default="demo", metavar="COMMAND", help="one of these")
    p.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    p.add_argument("--version", action="version", version=f"sklgap {__version__}")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] and argv[0] in ("-h", "--help", "--version"):
        parser().parse_args(argv)
    if not argv or argv[0].startswith("-"):
        argv = ["demo", *argv]
    if argv[0] not in COMMANDS:
        parser().parse_args(argv[:1])
    run: Callable[[Sequence[str]], int] = import_module(f"sklgap.cli._{argv[0]}").main
    try:
        return run(argv[1:])
    except (ValueError, TypeError, OSError) as error:
        return options.complain(error)
    except KeyboardInterrupt:
        options.say("Interrupted before the first fit had finished.")
        return options.INTERRUPTED
