"""docs/peers.md says of sklgap only what is there: every name in its column is public, every option exists."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from sklgap import LBGapClassifier

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "peers.md").read_text(encoding="utf-8")
DIGITS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True))
VERDICT = re.compile(rf"(yes|part|-)[{''.join(DIGITS)}]*")
LINK = re.compile(r"\{py:obj\}`(\w+)(?:\(([\w, ]+)\))? <([\w.]+)>`")  # name(options) <where it is public>
PARAMETER = re.compile(r"`(\w+)`")
# What no name can show.
FACTS = {"Python 3.11 and torch 2.13", "documentation beyond a README", "tests in the repository"}


def table(section):
    """Return the rows of the section's table, without the line under the header."""
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


SECTIONS = [part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE) if "| | sklgap | " in part]
ROWS = [pytest.param(row, id=row[0]) for section in SECTIONS for row in table(section)[1:]]


def test_there_are_tables():
    # A search that finds nothing would pass.
    assert [section.split()[0] for section in SECTIONS] == ["Train", "Measure", "Plot", "Compare", "Engineering"]
    assert len({tuple(table(section)[0]) for section in SECTIONS}) == 1
    assert len(LINK.findall(TEXT)) > 40


def test_the_first_table_has_every_repository():
    first, *_ = TEXT.partition("\n## ")
    packages = [row[0].split("/")[-1].lower() for row in table(first)[1:]]
    repositories = re.findall(r"\]\(https://github.com/[\w-]+/([\w-]+)\)", TEXT.partition("## The repositories")[2])
    short = {"pytorch-hessian-eigenthings": "hessian-eigenthings"}
    assert sorted(packages) == sorted(short.get(name, name).lower() for name in repositories)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_names_what_does_it(row):
    _, ours, *peers = row
    assert len(peers) == 11
    assert all(VERDICT.fullmatch(cell) for cell in peers)
    links, parameters = LINK.findall(ours), PARAMETER.findall(LINK.sub("", ours))
    for name, options, path in links:
        module = importlib.import_module(path.removesuffix(f".{name}"))
        assert name in module.__all__
        assert set(re.findall(r"\w+", options)) <= set(inspect.signature(getattr(module, name)).parameters)
    assert set(parameters) <= set(LBGapClassifier().get_params())
    if not links and not parameters:
        assert VERDICT.fullmatch(ours)
        assert not ours.startswith("yes") or row[0] in FACTS


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.split()[0])
def test_every_note_is_there_and_used(section):
    marks = re.findall(rf"[{''.join(DIGITS)}]+", "".join(cell for row in table(section) for cell in row))
    used = {"".join(DIGITS[digit] for digit in mark) for mark in marks}
    assert used == set(re.findall(r"^(\d+)\. ", section, re.MULTILINE))
