"""What results of experiments share: tables, intervals in words, frames and files."""

import json
import os
import platform
import re
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

from sklgap._version import __version__

_POLICIES = {
    "batch": "batch statistics of fixed chunks",
    "population": "population statistics",
    "running": "running averages",
}


class ExperimentResult(ABC):
    """Records of the fits of an experiment, their printed form and their files; subclasses know what they mean.

    Parameters
    ----------
    records : list of dict
        Flat, one per measurement.
    settings : dict
        What was trained and measured, and on which versions.
    interrupted : bool
        Whether Ctrl-C ended it early.
    """

    def __init__(self, records: list[dict[str, Any]], settings: dict[str, Any], interrupted: bool) -> None:
        self.records = records
        self.settings = settings
        self.interrupted = interrupted

    @abstractmethod
    def warnings(self) -> list[str]:
        """Return, in plain sentences, what a reader must know before believing the figures."""

    def __str__(self) -> str:
        reading = self._reading()
        lines = [*self._head(), "", *self._table_lines(), *(["", *reading] if reading else [])]
        found = self.warnings()
        return "\n".join([*lines, *(["", "Please note:"] if found else []), *(f"* {sentence}" for sentence in found)])

    __repr__ = __str__

    @abstractmethod
    def _head(self) -> list[str]:
        """Return the lines above the table: what was trained and measured."""

    @abstractmethod
    def _table(self) -> list[list[str]]:
        """Return the rows of the table, its header first."""

    def _table_lines(self) -> list[str]:
        return aligned(self._table())

    @abstractmethod
    def _reading(self) -> list[str]:
        """Return the lines below the table: what it says."""

    @abstractmethod
    def _statistics(self) -> dict[str, Any]:
        """Return what is said of the records, for the file."""

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per record; needs pandas."""
        return to_frame(self.records)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return settings, statistics, warnings and records as JSON; write it to ``path`` if given."""
        content = {"settings": self.settings, "interrupted": self.interrupted, **self._statistics()}
        return to_json({**content, "warnings": self.warnings(), "records": self.records}, path)


def describe_policy(batch_norm: str) -> str:
    """Return the line of a report that says how its losses and accuracies were measured."""
    return f"losses and accuracies with {_POLICIES[batch_norm]} in batch norm (batch_norm={batch_norm!r}), dropout off"


def convergence_warnings(label: str, converged: Sequence[bool | None]) -> list[str]:
    """Return a sentence about fits of one kind that their stopping rule did not end, or that had none."""
    not_yet = sum(value is not None and not value for value in converged)
    if not_yet:
        fits = "fit" if len(converged) == 1 else "fits"
        return [f"{label} had not converged under its stopping rule in {not_yet} of {len(converged)} {fits}."]
    if any(value is None for value in converged):
        return [f"{label} was trained for max_epochs, without a stopping rule."]
    return []


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        row[0].ljust(widths[0]) + "".join("   " + cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def count(n: int, noun: str) -> str:
    """Return the number with its noun in singular or plural."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return the names in one phrase, of many the first ones."""
    separator = "; " if any("," in name for name in names) else ", "
    shown, rest = list(names[:most]), len(names) - most
    last = f"{rest} more" if rest > 0 else shown.pop()
    return f"{separator.join(shown)} and {last}" if shown else last


def mean_std(values: np.ndarray, spec: str) -> str:
    """Return mean ± standard deviation; the mean alone of a single value, and "-" of none."""
    if not len(values):
        return "-"
    mean = format(values.mean(), spec)
    return mean if len(values) < 2 else f"{mean} ± {format(values.std(ddof=1), spec)}"


def to_frame(records: list[dict[str, Any]]) -> Any:
    """Return a pandas DataFrame with one row per record."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_frame needs pandas: pip install pandas; to_json and records do not.") from error
    return pd.DataFrame(records)


def to_json(content: dict[str, Any], path: str | Path | None) -> str:
    """Return the content as JSON, what JSON does not know as its text; write it to ``path`` if given."""
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, default=text_of)
    if path is not None:
        Path(path).write_text(text + "\n", encoding="utf-8")
    return text


def text_of(value: Any) -> str:
    """Return the repr without addresses in memory, which say nothing to another process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def environment() -> dict[str, Any]:
    """Return versions and hardware, for the record."""
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


def _plain(value: Any) -> Any:
    """Return JSON's own types; numbers that JSON does not know become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
