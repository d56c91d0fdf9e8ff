"""The map of the documentation names every public function, in a table by question, and files that are there."""

import inspect
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAP = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
QUESTIONS, CONCEPTS = MAP.split("## Concepts of the papers")
NAMED = set(re.findall(r"\{py:obj\}`(?:[^`<]*<)?([\w.]+)>?`", QUESTIONS))


@pytest.fixture(scope="module")
def public():
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    try:
        import public_names
    finally:
        sys.path.pop(0)
    return public_names


def answers(public):
    """Return the names that answer a question: functions, Displays, and all of the top level and of the monitor."""
    found = {}
    for name, package in public.places().items():
        value = public.value_of(package, name)
        is_record = package == "sklgap.monitor" and name.endswith("Check")  # what check_accumulation returns
        if (
            inspect.isfunction(value)
            or name.endswith("Display")
            or package == "sklgap"
            or (package == "sklgap.monitor" and not is_record)
        ):
            found[name] = package
    return found


def test_there_are_many_of_them(public):
    # A search that finds nothing would pass.
    names = set(answers(public))
    assert {"batch_size_curve", "BatchSizeMonitor", "hessian_trace", "SpectrumDisplay", "prune", "SAM"} <= names
    assert len(names) > 120


def test_every_public_name_that_answers_a_question_is_on_the_map(public):
    assert not sorted(set(answers(public)) - NAMED)


def test_every_callback_for_another_library_is_on_the_map():
    # Read, not imported: each module needs a library of its own.
    modules = [path for path in (ROOT / "sklgap" / "monitor").glob("*.py") if not path.name.startswith("_")]
    assert len(modules) >= 3
    for path in modules:
        (name,) = re.findall(r'^__all__ = \["(\w+)"\]$', path.read_text(encoding="utf-8"), re.MULTILINE)
        assert f"sklgap.monitor.{path.stem}.{name}" in NAMED


def test_every_name_on_the_map_is_public(public):
    known = set(public.places())
    assert not [name for name in NAMED if name not in known and not name.startswith("sklgap.monitor.")]


def test_the_questions_are_in_plain_groups():
    for group in ("How large can my batch be?", "Why is a large batch worse?", "What wins accuracy back?"):
        assert f"\n## {group}\n" in QUESTIONS
    for line in QUESTIONS.splitlines():
        if re.match(r"\| [A-Z]", line):
            assert line.split(" | ")[0].endswith("?"), line


def test_the_files_of_the_concepts_are_there():
    rows = [line.split(" | ") for line in CONCEPTS.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 40
    for row in rows:
        folder = None
        for name in re.findall(r"`([\w/]+\.py)`", row[2]):
            folder = name.rpartition("/")[0] or folder
            assert (ROOT / "sklgap" / folder / name.rpartition("/")[2]).is_file(), name
