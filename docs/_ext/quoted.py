"""Figures that a page quotes, each checked against the record that it comes from.

A marker is an HTML comment, which no reader sees. It stands right after one figure or several and holds the record and
a Python expression for their values::

    SB tests at 98.48 ± 0.06 %. <!-- mnist_f1_sb_lb.json: mean_std(100 * trials("SB", "test_accuracy")) -->

Every number of the text must be the value of the record at the precision that the text shows. A marker in the head of a
column holds for each cell of the column; ``row`` is the label of the row there. The values stand in the order of the
text, and ``...`` stands for a number that the record does not hold. ``<!-- published -->`` says that the numbers before
it are those of a paper, and ``<!-- set -->`` that somebody chose them. A block that says "no record" in words needs no
marker, and neither does a section that says "**No record.**".

Above a block of text or a quotation, a marker whose values are strings says that it is these strings, however its lines
break.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

FOLDER = Path(__file__).resolve().parents[1] / "results"

COMMENT = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)
PRINTED = re.compile(
    r"<!--\s*([\w./-]+\.json):\s*([^>]+?)\s*-->\n+(?:```text\n(?P<text>.*?)^```$|(?P<quote>(?:>[^\n]*\n)+))",
    re.DOTALL | re.MULTILINE,
)
QUOTE_SIGNS = re.compile(r"^>|\*\*", re.MULTILINE)
READ = re.compile(r"([\w./-]+\.json):\s*(.+)", re.DOTALL)
SAID = re.compile(r"(?:published|set)\b")
FENCE = re.compile(r"\s*(?:```|~~~)")
HEADING = re.compile(r"#{1,6} ")
NEW_BLOCK = re.compile(r"\s*(?:[*+-] |\d+\. |#{1,6} |:::|\|)")
TABLE_LINE = re.compile(r"[|\s:-]+")
NUMBER = re.compile(r"(?<![\w.,])([-+]?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?:e([-+]?\d+))?(?!\d|\.\d)")
# Numbers that nobody measured: names, versions, and what a user sets.
NO_FIGURE = re.compile(
    r"""`[^`]*` | \]\([^)]*\) | \$[^$]*\$ | arXiv:\S+ | \b95\s%
    | (?<![\w.])(?:1e-3|5e-4)(?![\w.])
    | \b(?:torch|Python|SciPy|skorch|PyHessian|curvlinops|Metric|Sections?|Figures?|Tables?|version)\s\d[\d.]*
    | \b(?:rates?(?:\sof)?|epsilon|ADAM|Adam|SGD|momentum|tolerance|factor)\s[\de.-]+
    """,
    re.VERBOSE,
)
UNIT = re.compile(r"\s?(?:%|points?\b|times\b|-fold\b|±|\])")


class Number(NamedTuple):
    """A number of a text."""

    text: str
    value: float
    unit: float  # of the last digit that is shown
    measured: bool  # looks like a measurement: has decimals, a unit, or stands in an interval


class Block(NamedTuple):
    """A paragraph, an item of a list, or the cell of a table."""

    line: int
    text: str
    column: str = ""  # the marker in the head of its column
    row: str = ""  # the label of its row


def faults(text: str, complete: bool = True, folder: Path = FOLDER) -> list[str]:
    """Return a sentence for each figure of a page that differs from its record, or that has no marker."""
    found = []
    for block in PRINTED.finditer(text):
        strings = " ".join(_evaluated(block[1], block[2], "", folder)).split()
        kind = "text" if block["quote"] is None else "quote"
        if strings != QUOTE_SIGNS.sub("", block[kind]).split():
            line = text.count("\n", 0, block.start(kind)) + 1
            found.append(f"line {line}: the text is not that of {block[1]}")
    for section in _sections(PRINTED.sub(lambda block: re.sub(r"[^\n]+", "", block[0]), text)):
        excused = any("**No record.**" in block.text for block in section)
        for block in section:
            found += [f"line {block.line}: {fault}" for fault in _block_faults(block, complete and not excused, folder)]
    return found


def n_markers(text: str) -> int:
    """Return the number of markers that read a record."""
    return sum(bool(READ.fullmatch(content)) for content in COMMENT.findall(text))


def numbers(text: str) -> list[Number]:
    """Return the numbers of a text, without those that name or set something."""
    blanked = NO_FIGURE.sub(lambda match: "_" * len(match[0]), text)
    found = []
    for match in NUMBER.finditer(blanked):
        sign, whole, decimals, exponent = match.groups()
        digits = whole.replace(",", "")
        # A whole number may be rounded to three figures: 1,980 for 1,979.
        zeros = 0 if decimals else min(len(digits) - len(digits.rstrip("0")), max(len(digits) - 3, 0))
        scale = 10.0 ** int(exponent or 0)
        value = float(f"{sign}{digits}{decimals or ''}") * scale
        unit = 10.0 ** (zeros - max(len(decimals or "") - 1, 0)) * scale
        before = blanked[: match.start()].rstrip()[-1:]
        measured = bool(decimals or exponent or UNIT.match(blanked, match.end())) or before in ("±", "[")
        found.append(Number(match[0], value, unit, measured))
    return found


# -- the page ----------------------------------------------------------------------------------------------------------


def _sections(text: str) -> Iterator[list[Block]]:
    """Yield the blocks of each section."""
    section: list[Block] = []
    for block in _blocks(text):
        if HEADING.match(block.text):
            yield section
            section = []
        section.append(block)
    yield section


def _blocks(text: str) -> Iterator[Block]:
    """Yield paragraphs, items, and cells of tables, without blocks of code."""
    lines: list[str] = []
    start, in_code, head = 0, False, None
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if FENCE.match(line):
            in_code = not in_code
        is_row = not in_code and line.startswith("|")
        ends = in_code or FENCE.match(line) or not line.strip() or (NEW_BLOCK.match(line) and not _is_open(lines))
        if ends and lines:
            yield Block(start, "\n".join(lines))
            lines = []
        if is_row:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if head is None:
                head = cells
            elif not TABLE_LINE.fullmatch(line):
                label = re.sub(r"[*`]|(?<=\d),(?=\d{3})", "", COMMENT.sub("", cells[0])).strip()
                columns = [" ".join(f"<!-- {marker} -->" for marker in COMMENT.findall(cell)) for cell in head]
                for cell, column in zip(cells[1:], columns[1:], strict=False):  # a label is no figure
                    yield Block(number, cell, column, label)
            continue
        head = None
        if not in_code and not FENCE.match(line) and line.strip():
            start = start if lines else number
            lines.append(line)


def _is_open(lines: list[str]) -> bool:
    """Say whether a comment has begun and not ended."""
    joined = "\n".join(lines)
    return joined.count("<!--") > joined.count("-->")


# -- a block -----------------------------------------------------------------------------------------------------------


def _block_faults(block: Block, complete: bool, folder: Path) -> Iterator[str]:
    text = block.text if COMMENT.search(block.text) else block.text + block.column
    complete = complete and "no record" not in COMMENT.sub("", text).lower()
    end = 0
    for marker in COMMENT.finditer(text):
        found = numbers(text[end : marker.start()])
        end = marker.end()
        read = READ.fullmatch(marker[1])
        if read and (found or not block.column):
            try:
                values = _values(read[1], read[2], block.row, folder)
            except Exception as error:  # whatever the expression does, the page is at fault
                yield f"the marker {marker[1]!r} fails: {type(error).__name__}: {error}"
                continue
            quoted = found[len(found) - len(values) :] if len(values) <= len(found) else []
            if not values or len(quoted) != len(values):
                yield f"{len(found)} numbers stand before {marker[1]!r}, which has {len(values)} values"
                continue
            for number, value in zip(quoted, values, strict=True):
                if not isinstance(value, EllipsisType) and not _agrees(number, value):
                    yield f"the text says {number.text}, and {read[1]} says {value:.6g}"
            found = found[: len(found) - len(values)]
        elif SAID.match(marker[1]):
            found = []
        if complete:
            yield from _unmarked(found)
    if complete:
        yield from _unmarked(numbers(text[end:]))


def _unmarked(found: list[Number]) -> Iterator[str]:
    for number in found:
        if number.measured:
            yield f"{number.text} has no marker"


def _agrees(number: Number, value: float) -> bool:
    """Say whether the number is the value, rounded to the digits that the number shows."""
    return math.isclose(number.value, value, rel_tol=1e-9, abs_tol=number.unit * (0.5 + 1e-6))


# -- what an expression may use ----------------------------------------------------------------------------------------


def _values(file: str, expression: str, row: str, folder: Path) -> list[float | EllipsisType]:
    """Return the values of an expression, flat, without those that the record leaves open."""
    return list(_flat(_evaluated(file, expression, row, folder)))


def _evaluated(file: str, expression: str, row: str, folder: Path) -> Any:
    """Return what an expression says of a record."""

    def load(name: str) -> Any:
        return _record(folder / name)

    record = load(file)

    def trials(regime: str, name: str, of: Any = record) -> np.ndarray:
        """Return the values of one quantity, a value for each trial."""
        chosen = [one for one in of["records"] if str(one["regime"]) == regime]
        return np.array([one[name] for one in sorted(chosen, key=lambda one: one["trial"])], dtype=float)

    def drawn(name: str) -> Any:
        """Return a number or an object that a figure is drawn from; see examples/_options.py."""
        return _plain(record["drawn"])[name]

    names = {"record": record, "row": row, "load": load, "trials": trials, "drawn": drawn, **FUNCTIONS}
    return eval(" ".join(expression.split()), {"__builtins__": {}, **names})


@cache
def _record(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _plain(value: Any) -> Any:
    """Return what a figure is drawn from as dicts, sequences and numbers. An object becomes the dict of its fields."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {_plain(key): _plain(one) for key, one in value["items"]}
    if "tuple" in value:
        return tuple(_plain(value["tuple"]))
    if "float" in value:
        return float(value["float"])
    if "array" in value:
        return np.array(_plain(value["array"]), dtype=value["dtype"]).reshape(value["shape"])
    return _plain(value["state"])


def _flat(value: Any) -> Iterator[float | EllipsisType]:
    if value is ...:
        yield ...
    elif isinstance(value, (tuple, list, np.ndarray)):
        for one in value:
            yield from _flat(one)
    elif value is not None:
        yield float(value)


def where(rows: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    """Return the one dict with these values."""
    (found,) = (one for one in rows if all(str(one[key]) == str(value) for key, value in keys.items()))
    return found


def mean_std(values: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation over the trials."""
    return np.array([np.mean(values), np.std(values, ddof=1)])


def estimate(found: Mapping[str, Any], scale: float = 1.0) -> list[float | None]:
    """Return value, lower and upper end of an interval that a record holds."""
    value = found["value"] if "value" in found else found["mean"]
    return [None if one is None else scale * one for one in (value, found["low"], found["high"])]


def paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the mean of the paired differences, with Student's 95 % interval."""
    differences = first - second
    error = stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1)
    return np.mean(differences) + np.array([0, -error, error])


def late(values: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """Return the values of the second half of the updates."""
    return values[updates > max(updates) / 2]


FUNCTIONS = {
    "where": where,
    "mean_std": mean_std,
    "estimate": estimate,
    "paired": paired,
    "late": late,
    "mean": np.mean,
    "median": np.median,
    "min": np.min,
    "max": np.max,
    "len": len,
    "sum": sum,
    "abs": np.abs,
    "float": float,
    "int": int,
}
