"""The page "What is measured exactly, and what is refused": every row names tests that are there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "guide" / "measured.md"
HEAD = re.compile(r"^\| kind of .*\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)
COMMENT = re.compile(r"<!-- (.*?) -->")


def _rows():
    """Return the cells and the tests of every row of the tables about kinds of something."""
    rows = "".join(HEAD.findall(PAGE.read_text(encoding="utf-8"))).splitlines()
    return [(COMMENT.sub("", row).strip("|").split(" | "), " ".join(COMMENT.findall(row)).split()) for row in rows]


ROWS = _rows()


def test_there_are_rows_of_every_section():
    assert len(HEAD.findall(PAGE.read_text(encoding="utf-8"))) == 4
    assert len(ROWS) > 40
    assert all(len(cells) == 3 for cells, _ in ROWS)


@pytest.mark.parametrize(("cells", "named"), ROWS, ids=[cells[0].strip() for cells, _ in ROWS])
def test_the_tests_of_a_row_are_there(cells, named):
    assert named, f"no comment names the tests of {cells[0]}"
    for test in named:
        file, _, name = test.partition("::")
        tree = ast.parse((TESTS / f"{file}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, name)
