"""README is short, has the two commands, and shows no dead link in a package index.

tests/test_quoted_figures.py compares its figures with the records.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RELATIVE = re.compile(r"\]\((?!https:)|<img|src=|href=")


def test_the_readme_is_short():
    assert len(re.sub(r"<!--.*?-->", "", README).split()) <= 900


def test_the_readme_has_the_two_commands_each_on_its_own_line():
    # .ci/run runs them as they stand there.
    lines = README.splitlines()
    assert lines.count('pip install ".[repro,plot]" && python -m sklgap') == 1
    assert lines.count('pip install ".[repro,test]" && pytest') == 1


# -- the description for a package index -------------------------------------------------------------------------------


def description_of(text):
    """Return what pyproject.toml makes of a README."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for rule in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    return text


def test_the_description_has_no_relative_link_or_picture():
    assert RELATIVE.search(README)
    description = description_of(README)
    assert not RELATIVE.search(description)
    assert "<!--" not in description
    assert description.startswith("# sklgap\n")
    assert "](https://arxiv.org/abs/1609.04836)" in description


def test_the_description_keeps_code_and_words():
    text = "[a](b.md) x <!-- f.json: 1 -->\n\n![p](q.png)\n\n```python\nnets[0](X)\n```\n\n[c\nd](e.md#f) [g](https://h.org/)\n"
    assert description_of(text) == "a x\n\n```python\nnets[0](X)\n```\n\nc\nd [g](https://h.org/)\n"


def test_there_is_no_invented_address():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if "urls" not in project:
        for path in [ROOT / "README.md", ROOT / "pyproject.toml", *(ROOT / "docs").rglob("*.md")]:
            assert "/sklgap/sklgap" not in path.read_text(encoding="utf-8"), path
