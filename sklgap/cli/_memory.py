"""``python -m sklgap memory FOLDER``: list or remove the work that is saved in a folder."""

import argparse
import math
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from sklgap.cli._options import Parser, part

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    p = Parser(
        prog="python -m sklgap memory",
        description="List the work that is saved in a folder (memory=FOLDER of LBGapClassifier and of the "
        "experiments), or remove some of it. Files that sklgap did not write are never changed. Every option that "
        "removes work also removes damaged files and the temporary files of killed processes.",
        epilog="example: python -m sklgap memory saved --older-than 30d --max-size 2GB --dry-run",
    )
    p.add_argument("folder", metavar="FOLDER", help="folder with the saved work")
    p.add_argument("--older-than", metavar="AGE", help="remove work that is older than AGE, such as 12h, 30d or 4w")
    p.add_argument(
        "--other-versions", action="store_true", help="remove work that other versions of sklgap or torch saved"
    )
    p.add_argument(
        "--max-size", metavar="SIZE", help="remove the oldest work until the rest fits into SIZE, such as 500MB or 2GB"
    )
    p.add_argument("--dry-run", action="store_true", help="list what would be removed, and remove nothing")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    with part("the command"):
        return _list_or_remove(parser().parse_args(argv))


def _list_or_remove(arguments: argparse.Namespace) -> int:
    from sklgap.memory import prune, saved_work  # torch is not needed for the help

    prunes = arguments.older_than is not None or arguments.other_versions or arguments.max_size is not None
    try:
        if not (prunes or arguments.dry_run):
            works = saved_work(arguments.folder)
            print(_table(works))
            print(f"{_count(len(works))}, {_size(sum(work.n_bytes for work in works))} in {arguments.folder}")
            return 0
        removed = prune(
            arguments.folder,
            older_than=_age(arguments.older_than),
            other_versions=arguments.other_versions,
            max_size=_bytes(arguments.max_size),
            dry_run=arguments.dry_run,
        )
    except (ValueError, TypeError, OSError) as error:
        print(f"sklgap: {error}", file=sys.stderr)
        return 2
    print(_table(removed))
    verb = "would be removed" if arguments.dry_run else "removed"
    print(f"{_count(len(removed))}, {_size(sum(work.n_bytes for work in removed))} {verb}")
    return 0


def _table(works: list[Any]) -> str:
    from sklgap.memory._housekeeping import KINDS

    rows = [("saved", "size", "what", "sklgap", "torch", "about", "file")]
    for work in works:
        what = f"damaged {KINDS[work.kind]}" if work.damaged else KINDS.get(work.kind, "left by a killed process")
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(work.saved))
        rows.append((when, _size(work.n_bytes), what, work.sklgap, work.torch, _line(work.about), work.path.name))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _line(text: str) -> str:
    """Return a text from a file without control characters, so that it is safe to print."""
    return "".join(character if character.isprintable() else "?" for character in text)[:60]


def _count(n: int) -> str:
    return f"{n} file{'' if n == 1 else 's'}"


def _size(n_bytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} B"


def _age(text: str | None) -> float | None:
    """Return an age in seconds."""
    return None if text is None else _amount("--older-than", text, _UNITS, "a number and s, m, h, d or w, such as 30d")


def _bytes(text: str | None) -> float | None:
    return None if text is None else _amount("--max-size", text, _SIZES, "a number and KB, MB or GB, such as 2GB")


def _amount(option: str, text: str, units: dict[str, int], allowed: str) -> float:
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)", text.strip())
    unit = None if found is None else found[2].upper() if units is _SIZES else found[2].lower()
    if found is None or unit not in units or not math.isfinite(float(found[1])):
        raise ValueError(f"{option} must be {allowed}; got {text!r}.")
    return float(found[1]) * units[unit]
