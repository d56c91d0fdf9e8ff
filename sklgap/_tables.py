"""Tables and records as plain text, LaTeX, Markdown, HTML, JSON and DataFrames."""

import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Rows = Sequence[Sequence[str]]

# Largest width of a printed table, in characters.
_LINE = 120
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "−": "$-$",
}


def _aligned(rows: Rows) -> list[str]:
    """Return the lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        row[0].ljust(widths[0]) + "".join("   " + cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def folded(rows: Rows) -> list[str]:
    """Return the lines of a table. Columns that do not fit into the width stand in another table below."""
    lines: list[str] = []
    while rows and len(rows[0]) > 1:
        n = len(rows[0]) - 1
        while n > 1 and len(_aligned([row[: n + 1] for row in rows])[0]) > _LINE:
            n -= 1
        lines += ["", *_aligned([row[: n + 1] for row in rows])]
        rows = [[row[0], *row[n + 1 :]] for row in rows]
    return lines[1:]


def to_latex(rows: Rows, path: str | Path | None = None) -> str:
    """Return the rows as a LaTeX ``tabular``, the first row as its head; write it to ``path`` if given."""
    first, *rest = (["".join(_LATEX.get(character, character) for character in cell) for cell in row] for row in rows)
    # After the end of a row LaTeX takes a bracket for an argument.
    lines = [("{}" if row[0][:1] in ("[", "*") else "") + " & ".join(row) + r" \\" for row in rest]
    columns = "l" + "r" * (len(first) - 1)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(first) + r" \\", r"\midrule", *lines]
    return _written("\n".join([*body, r"\bottomrule", r"\end{tabular}"]), path)


def to_markdown(rows: Rows, path: str | Path | None = None) -> str:
    """Return the rows as a table in Markdown, the first row as its head; write it to ``path`` if given."""
    first, *rest = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    rule = ["---", *["---:"] * (len(first) - 1)]
    return _written("\n".join("| " + " | ".join(row) + " |" for row in [first, rule, *rest]), path)


def to_html(rows: Rows) -> str:
    """Return the rows as a table in HTML, the first row as its head."""
    first, *rest = rows
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in first)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rest)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def notes_in_html(notes: Sequence[str]) -> str:
    """Return notes as a list in HTML; nothing if there are no notes."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in notes)
    return f"<p>Please note:</p><ul>{items}</ul>" if items else ""


def to_frame(records: list[dict[str, Any]]) -> Any:
    """Return a pandas DataFrame with one row per record."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_frame needs pandas (pip install pandas). records and to_json do not need it.") from error
    return pd.DataFrame(records)


def to_json(content: dict[str, Any], path: str | Path | None = None) -> str:
    """Return the content as JSON; other objects become their text. Write it to ``path`` if given."""
    return _written(json.dumps(_plain(content), indent=2, ensure_ascii=False, default=text_of), path)


def text_of(value: Any) -> str:
    """Return the repr without addresses in memory, which differ between processes."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        Path(path).write_text(text + "\n", encoding="utf-8")
    return text


def _plain(value: Any) -> Any:
    """Return types that JSON has; numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
