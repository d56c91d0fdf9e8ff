"""Every block of Python on the pages of ``docs`` and in the README runs, and their links lead somewhere."""

import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WRITTEN_BY_THE_BUILD = {"api", "auto_examples", "_build"}
PAGES = [
    ROOT / "README.md",
    *sorted(
        path
        for path in (ROOT / "docs").rglob("*.md")
        if not WRITTEN_BY_THE_BUILD & set(path.relative_to(ROOT / "docs").parts)
    ),
]
# Pages that take more than some five seconds.
SLOW = {
    "README.md",
    "docs/get_started.md",
    "docs/index.md",
    "docs/guide/too_large.md",
    "docs/guide/trust.md",
    "docs/guide/why.md",
    "docs/guide/sweep.md",
    "docs/guide/remedies.md",
    "docs/guide/run.md",
    "docs/developer/extend.md",
}
# What needs data from outside, hours, or other processes (tests/test_parallel.py has those) is compiled only.
ONLY_COMPILED = re.compile(r"fetch_(mnist|cifar10|cifar100)\(|load_timit\(|import Client|init_process_group\(")


def blocks(page):
    """Return (first line, code) of every block of Python; lines are counted from 1."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start(1)) + 1, match.group(1))
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


def compiled(page, line, code):
    """Compile a block so that a traceback names the page and its line."""
    return compile("\n" * (line - 1) + code, str(page.relative_to(ROOT)), "exec")


WITH_CODE = [page for page in PAGES if blocks(page)]


def parameter(page):
    name = str(page.relative_to(ROOT))
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if name in SLOW else [])


def test_there_is_code():
    # A search that finds nothing would pass.
    names = {str(page.relative_to(ROOT)) for page in WITH_CODE}
    assert {"README.md", "docs/index.md", "docs/get_started.md", "docs/developer/extend.md"} <= names


@pytest.mark.parametrize("page", [parameter(page) for page in WITH_CODE])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)  # figures and files of the page
    namespace = {"__name__": "page"}
    try:
        for line, code in blocks(page):
            block = compiled(page, line, code)
            if not ONLY_COMPILED.search(code):
                exec(block, namespace)
    finally:
        plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_compiles(page):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for line, code in blocks(page):
            compiled(page, line, code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"
