"""The base class of all results: sentences, a table, records, and their export to files and web pages."""

import html
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import scipy
import sklearn
import torch

from sklgap import _tables
from sklgap._version import __version__
from sklgap.experiments._estimate import Estimate

# Numbers from here on are written with an exponent.
_LONG = 1e13
_POLICIES = {
    "batch": "batch statistics of fixed chunks",
    "population": "population statistics",
    "running": "running averages",
}


class Result(ABC):
    """Result of an experiment: sentences, a table, records and their export. ``print`` shows it.

    A subclass explains its records by `_verdict`, `_head`, `_table`, `_reading`, `notes` and `_statistics`.

    Attributes
    ----------
    records : list of dict
        One flat dict per measurement.
    settings : dict
        What was trained and measured, and the versions of the libraries.
    interrupted : bool
        Whether Ctrl-C or SIGTERM ended the experiment early.
    """

    def __init__(self, records: list[dict[str, Any]], settings: dict[str, Any], interrupted: bool = False) -> None:
        self.records = records
        self.settings = settings
        self.interrupted = interrupted

    # -- what a subclass says --------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""

    @abstractmethod
    def _verdict(self) -> list[str]:
        """Return the one or two sentences that answer the question of the experiment."""

    @abstractmethod
    def _head(self) -> list[str]:
        """Return the lines above the table: what was trained and measured."""

    @abstractmethod
    def _table(self) -> list[list[str]]:
        """Return the rows of the table, its header first."""

    @abstractmethod
    def _reading(self) -> list[str]:
        """Return the lines below the table: what its columns mean."""

    def _next_call(self) -> list[str]:
        """Return a line that names the function to call next, if there is one."""
        return []

    @abstractmethod
    def _statistics(self) -> dict[str, Any]:
        """Return the statistics of the records, for the JSON file."""

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def verdict(self) -> list[str]:
        """The one or two sentences that answer the question of the experiment; empty if there is no answer."""
        return self._verdict()

    def text(self, *, verdict: bool = True, head: bool = True, notes: bool = True) -> str:
        """Return the text that ``print`` shows, or parts of it.

        Parameters
        ----------
        verdict, head, notes : bool, default=True
            Whether to include the answer, the lines above the table, and the notes with the next call. The table and
            the lines that explain it are always included.
        """
        reading = [*self._reading(), *(self._next_call() if notes else [])]
        blocks = [self.verdict if verdict else [], self._head() if head else [], _tables.folded(self._table()), reading]
        found = self.notes if notes else []
        if found:
            blocks.append(["Please note:", *(f"* {sentence}" for sentence in found)])
        return "\n\n".join("\n".join(block) for block in blocks if block)

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the verdict, the table and the notes for a notebook."""

        def paragraphs(lines: Sequence[str]) -> str:
            return "".join(f"<p>{html.escape(line)}</p>" for line in lines)

        verdict = "".join(f"<p><b>{html.escape(line)}</b></p>" for line in self._verdict())
        table, notes = _tables.to_html(self._table()), _tables.notes_in_html(self.notes)
        return f"<div>{verdict}{paragraphs(self._head())}{table}{paragraphs(self._reading())}{notes}</div>"

    def _interval_lines(self, estimates: Sequence[Estimate]) -> list[str]:
        """Return the lines that explain the printed intervals, each kind once."""
        return list(dict.fromkeys(f"in brackets: {e.about()}" for e in estimates if e.has_interval))

    # -- leaving ---------------------------------------------------------------------------------------------------

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per record; needs pandas."""
        return _tables.to_frame(self.records)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return settings, statistics, notes and records as JSON; write it to ``path`` if given."""
        content = {"settings": self.settings, "interrupted": self.interrupted, "verdict": self._verdict()}
        return _tables.to_json({**content, **self._statistics(), "notes": self.notes, "records": self.records}, path)

    def to_latex(self, path: str | Path | None = None) -> str:
        r"""Return the table as a LaTeX ``tabular`` with the rules of booktabs; write it to ``path`` if given.

        Needs ``\usepackage{booktabs}``.
        """
        return _tables.to_latex(self._table(), path)

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Return the table in Markdown; write it to ``path`` if given."""
        return _tables.to_markdown(self._table(), path)


def describe_policy(batch_norm: str) -> str:
    """Return the line of a report that explains how its losses and accuracies were measured."""
    policy = f"batch norm uses {_POLICIES[batch_norm]} (batch_norm={batch_norm!r})"
    return f"losses and accuracies: {policy}, and dropout is off"


def describe_measuring(settings: dict[str, Any]) -> list[str]:
    """Return the lines of a report that explain how losses were measured, and in which precision nets were trained."""
    lines, precision = [describe_policy(settings["batch_norm"])], settings.get("precision", "float32")
    if precision != "float32":
        lines.append(f"nets are trained with precision={precision!r} and measured in float32")
    return lines


def count(n: int, noun: str) -> str:
    """Return the number with its noun in singular or plural."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return the names in one phrase; of many names, the first ones and the number of the others."""
    separator = "; " if any("," in name for name in names) else ", "
    shown, rest = list(names[:most]), len(names) - most
    last = f"{rest} more" if rest > 0 else shown.pop()
    return f"{separator.join(shown)} and {last}" if shown else last


def mean_std(values: np.ndarray, spec: str) -> str:
    """Return mean ± standard deviation of the finite values, with their number if some values are not finite.

    A single value has no standard deviation. The text is "-" if no value is finite.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "-"
    shown = _short(finite.mean(), spec)
    if len(finite) > 1:
        shown += f" ± {_short(finite.std(ddof=1), spec)}"
    return shown if len(finite) == len(values) else f"{shown} ({len(finite)} of {len(values)})"


def _short(value: float, spec: str) -> str:
    """Return the number in this format, or with an exponent if it has many digits."""
    return format(value, spec if abs(value) < _LONG or not spec.endswith("f") else ".2e")


def environment() -> dict[str, Any]:
    """Return the versions of the libraries and the hardware."""
    return {
        "sklgap": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "skorch": version("skorch"),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "joblib": joblib.__version__,
        "machine": platform.machine(),
        "n_cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
