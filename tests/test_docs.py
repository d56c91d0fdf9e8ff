"""Every block of Python on the pages of ``docs`` and in the README runs, and their links lead somewhere.

A block of text directly below a block of Python, or below the line ``<!-- output -->``, is what that block prints.
Words and line breaks are compared. Numbers are not, as machines round differently. ``write_outputs.py`` writes them.
"""

import doctest
import re
import warnings
from pathlib import Path

import pytest

from tests.write_outputs import written

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
    "docs/guide/contested.md",
    "docs/guide/why.md",
    "docs/guide/study_design.md",
    "docs/guide/sweep.md",
    "docs/guide/remedies.md",
    "docs/guide/run.md",
    "docs/guide/own_loop.md",
    "docs/developer/extend.md",
}
# What needs data from outside, hours, or other processes (tests/test_parallel.py has those) is compiled only, and so is
# what needs other libraries (tests/monitor has those).
ONLY_COMPILED = re.compile(
    r"fetch_(mnist|cifar10|cifar100)\(|load_timit\(|import Client|init_process_group\("
    r"|sklgap\.monitor\.(lightning|transformers) import"
)
MARKER = "<!-- output -->"
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n"
    # A marked output: words may stand between it and its code, another block may not.
    rf"(?:(?:\n|(?:(?!```|{MARKER})[^\n]*\n)+{MARKER}\n+)```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
# Machines round differently, and the width of a column follows its numbers.
NUMBER = re.compile(r" *[-+]?\d+(,\d{3})*(\.\d+|\.(?= *\]| +[-+]?\d))?(e[-+]?\d+)?")


def blocks(page):
    """Return (first line, code, printed output or None) of every block of Python; lines are counted from 1."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start("code")) + 1, match["code"], match["output"]) for match in BLOCK.finditer(text)
    ]


def masked(text):
    """Return the text with equal numbers everywhere, and one blank where there are several."""
    lines = (NUMBER.sub(" 0", line).replace(" ]", "]") for line in text.splitlines())
    return "\n".join(re.sub(" +", " ", line).strip() for line in lines) + "\n"


def unwrapped(output, printed):
    """Return the masked output with the long lines of the masked text that was printed: a page breaks them."""
    for line in printed.splitlines():
        if len(line) > 40:  # more before its numbers were masked
            words = r"\s+".join(map(re.escape, line.split()))
            output = re.sub(words, lambda _, line=line: line, output)  # a function: the line is no pattern
    return output


def says_the_same(output, printed):
    """Compare the lines of a quoted output, in which "..." leaves something out, with what was printed."""
    printed = masked(printed)
    return doctest.OutputChecker().check_output(unwrapped(masked(output), printed), printed, doctest.ELLIPSIS)


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


def test_there_are_outputs():
    assert any(output for page in WITH_CODE for _, _, output in blocks(page))


@pytest.mark.parametrize(
    ("output", "printed", "same"),
    [
        ("64: up to 580 [350, 2,100]\n", "64: up to 430.5 [1e-3, -7]\n", True),
        ("size   lost\n256   +1.3\n", "size     lost   \n1,024   -10.25\n", True),
        ("safe: 64\n...\n", "safe: 128\n\nPlease note:\n* 5 trials\n", True),
        ("1,024 is shown\n", "1,024 is not shown\n", False),
        ("safe: 64\n", "safe: 64\nPlease note\n", False),
        (f"{'word ' * 10}\n{'word ' * 9}64\nend\n", f"{'word ' * 19}7\nend\n", True),
        (f"{'word ' * 10}\n{'word ' * 8}64\nend\n", f"{'word ' * 19}7\nend\n", False),
        ("[0.51 0.5 ] [5.1 5.5]\n", "[0.51 0.51] [5.  4. ]\n", True),
        ("safe: 64.\n", "safe: 64\n", False),
        ("two\nlines\n", "two lines\n", False),
        ("safe: 64\n", "", False),
        ("safe: 64\nPlease note\n", "safe: 64 Please note\n", False),
        ("[0.1, -0.25]\n\n", "[-7e-05,    0.3]\n", False),
        ("[0.1, -0.25]\n", "[-7e-05,    0.3]\n", True),
    ],
)
def test_words_are_compared_and_numbers_are_not(output, printed, same):
    assert says_the_same(output, printed) is same


@pytest.mark.parametrize(
    ("between", "output"),
    [
        ("\n", "3\n"),
        ("\n<!-- output -->\n", "3\n"),
        ("\nOn two cores:\n\n<!-- output -->\n\n", "3\n"),
        ("\nOn two cores:\n\n", None),
        ("\n```\nsklgap\n```\n\n<!-- output -->\n", None),
    ],
)
def test_an_output_belongs_to_the_block_above_it(tmp_path, between, output):
    (tmp_path / "page.md").write_text(f"# A page\n\n```python\nprint(3)\n```\n{between}```text\n3\n```\n")
    assert blocks(tmp_path / "page.md") == [(4, "print(3)\n", output)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@@\n", ["safe: 64", "", "Please note:", "* 5 trials"]),
        ("@@/Please\n", ["safe: 64", "", "..."]),
        ("@@/missing\n", ["safe: 64", "", "Please note:", "* 5 trials"]),
        ("size: 64\n...\n", ["safe: 64", "..."]),
        ("size: 64\n...\n* 5 trials\n", ["size: 64", "...", "* 5 trials"]),
    ],
)
def test_outputs_are_written(old, new):
    assert written(old, "safe: 64 \n\nPlease note:\n* 5 trials\n\n") == new


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_marked_output_is_compared(page):
    text = page.read_text(encoding="utf-8")
    used = sum(MARKER in match.group() for match in BLOCK.finditer(text))
    assert text.count(MARKER) == used, f"{page.name} has a marker without Python above it or text below it"


@pytest.mark.parametrize("page", [parameter(page) for page in WITH_CODE])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)  # figures and files of the page
    namespace = {"__name__": "page"}
    try:
        for line, code, output in blocks(page):
            block = compiled(page, line, code)
            if ONLY_COMPILED.search(code):
                assert output is None, f"line {line}: nobody checks this output"
                continue
            capsys.readouterr()
            exec(block, namespace)
            printed = capsys.readouterr().out
            if output is not None:
                assert says_the_same(output, printed), f"the block of line {line} prints:\n{printed}"
    finally:
        plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_compiles(page):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for line, code, _ in blocks(page):
            compiled(page, line, code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"
