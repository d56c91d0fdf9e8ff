"""Every figure that README, landing page, papers page and results page quote is that of its record.

Any page may have markers (docs/_ext/quoted.py), and all of them are read. The pages below must have one for each figure.
"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("quoted", ROOT / "docs" / "_ext" / "quoted.py")
quoted = sys.modules["quoted"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(quoted)

COMPLETE = ["docs/papers.md", "docs/results/README.md"]
PAGES = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if not {"api", "auto_examples", "_build"} & set(path.relative_to(ROOT).parts)
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_are_those_of_their_records(page):
    complete = str(page.relative_to(ROOT)) in COMPLETE
    assert quoted.faults(page.read_text(encoding="utf-8"), complete) == []


def test_there_are_markers():
    # A search that finds nothing would pass.
    for name in COMPLETE:
        assert quoted.n_markers((ROOT / name).read_text(encoding="utf-8")) > 20
