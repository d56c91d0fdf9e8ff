"""Tiny files for the tests of the command line, and what a command said."""

from typing import NamedTuple

import numpy as np

from sklgap.cli import main

QUICK = ("--epochs", "2", "--trials", "2", "--jobs", "1", "--lr", "0.01", "--margin", "0.2")


class Said(NamedTuple):
    """What a command left: its exit code, its lines on stdout, and what it wrote to stderr."""

    code: int
    lines: list[str]
    error: str


def run(capsys, *arguments):
    """Run a command in this process."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code
    out, error = capsys.readouterr()
    return Said(code, out.splitlines(), error)


def refused(capsys, *arguments):
    """Run a command that must end in one sentence on stderr; return the sentence."""
    said = run(capsys, *arguments)
    assert said.code == 2
    assert said.lines == []
    assert said.error.startswith("sklgap: ")
    assert said.error.count("\n") == 1, said.error
    assert "Traceback" not in said.error
    return said.error.removeprefix("sklgap: ").strip()


def rows(n=120, seed=0):
    """Return a header and rows: numbers with gaps, words with gaps, yes and no, and a label to learn."""
    rng = np.random.default_rng(seed)
    found = [["size", "wait", "colour", "new", "late"]]
    for i in range(n):
        size, wait = rng.normal(size=2)
        late = "late" if size + 0.2 * wait > 0.5 else "ok"
        colour = "" if i % 9 == 0 else ["red", "green", "blau-grün"][i % 3]
        found.append([f"{size:.3f}", "" if i % 7 == 0 else f"{wait:.3f}", colour, str(i % 2 == 0), late])
    return found


def write(path, lines):
    """Write rows, or lines of text, as CSV; return the path."""
    text = "\n".join(line if isinstance(line, str) else ",".join(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def with_column(name, values, n=40):
    """Return the lines of a table of two classes with one column of these values, in turn."""
    return [f"{name},other,target", *(f"{values[i % len(values)]},{i % 5},{'ab'[i % 2]}" for i in range(n))]
