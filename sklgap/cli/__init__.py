"""The command line, one file a command. The help and errors of usage need no torch."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

# Each command and what it answers; its file has `parser` and `main`.
COMMANDS = {
    "demo": "all three questions on a data set that is generated here, in about a minute (the default)",
    "curve": "how large may the batch be, for a data set or a file of yours?",
    "explain": "why does the large batch lose?",
    "compare": "the papers' tables for several regimes",
    "sharpness": "the sharpness of saved weights",
    "memory": "list or remove saved work",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser that knows the names of the commands."""
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    p = argparse.ArgumentParser(
        prog="python -m sklgap",
        description="How large can a batch be before accuracy drops, why does it drop, and what wins it back?\n\n"
        "commands:\n" + "\n".join(lines) + "\n\nEach has a help of its own: python -m sklgap curve --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("command", nargs="?", choices=list(COMMANDS), default="demo", metavar="COMMAND", help="one of these")
    p.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] and argv[0] in ("-h", "--help"):
        parser().parse_args(argv)
    if not argv or argv[0].startswith("-"):
        argv = ["demo", *argv]
    if argv[0] not in COMMANDS:
        parser().parse_args(argv[:1])
    run: Callable[[Sequence[str]], int] = import_module(f"sklgap.cli._{argv[0]}").main
    return run(argv[1:])
