"""The page "What is measured exactly, and what is refused": every row names tests that are there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "guide" / "measured.md"


def _rows():
    """Return the cells of every row of every table, without the heads."""
    rows = [line.strip().strip("|").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if row[0].strip() not in ("---",) and "tests" not in row[-1]]


ROWS = [row for row in _rows() if not set(row[0]) <= {"-", "|", " "}]


def test_there_are_rows_of_every_section():
    assert len(ROWS) > 40
    assert all(len(row) == 4 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_tests_of_a_row_are_there(row):
    named = re.findall(r"`([\w/]+)::(\w+)`", row[-1])
    assert named
    for file, name in named:
        tree = ast.parse((TESTS / f"{file}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, name)
