"""The command line: one file for each command. ``--help`` and usage errors do not import torch."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from sklgap._version import __version__
from sklgap.cli import _options as options

# Each command with what it answers. The file of a command has the functions `parser` and `main`.
COMMANDS = {
    "demo": "answer all three questions on a generated data set, in about a minute (the default)",
    "curve": "find the largest batch size that is safe for a named data set or for your file",
    "explain": "find out why the large batch loses accuracy",
    "compare": "print the papers' tables for several batch sizes",
    "sharpness": "measure the sharpness of saved weights",
    "memory": "list or remove saved work",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser that knows the names of the commands."""
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    p = options.Parser(
        prog="python -m sklgap",
        description="How large can a batch be before accuracy drops, why does it drop, and what wins it back?\n\n"
        "commands:\n" + "\n".join(lines) + "\n\n"
        "Each command has its own help: python -m sklgap curve --help\n"
        "To analyse your own table: python -m sklgap curve data.csv --target COLUMN",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "command", nargs="?", choices=list(COMMANDS), default="demo", metavar="COMMAND", help="a command of the list"
    )
    p.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="arguments of the command")
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
    except KeyboardInterrupt as interruption:
        options.say(f"Interrupted before {interruption.args[0] if interruption.args else 'the first fit'} finished.")
        return options.INTERRUPTED
