"""README and landing page: they are short, their figures are those of the records, and an index shows no dead link."""

import json
import re
import statistics
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LANDING = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
RESULTS = ROOT / "docs" / "results"
RELATIVE = re.compile(r"\]\((?!https:)|<img|src=|href=")


def record(name):
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def flowed(text):
    return " ".join(text.split())


def test_the_readme_is_short():
    assert len(README.split()) <= 900


def test_the_readme_has_the_two_commands_each_on_its_own_line():
    # .ci/run runs them as they stand there.
    lines = README.splitlines()
    assert lines.count('pip install ".[repro,plot]" && python -m sklgap') == 1
    assert lines.count('pip install ".[repro,test]" && pytest') == 1


@pytest.mark.parametrize("page", [README, LANDING], ids=["README.md", "docs/index.md"])
def test_the_output_of_the_main_job_is_that_of_its_record(page):
    text = re.sub(r"^>|\*\*", "", page, flags=re.MULTILINE)  # quoted, with bold questions, on the landing page
    assert flowed("\n".join(record("main_job.json")["answers"])) in flowed(text)


def test_the_result_of_the_readme_is_that_of_its_record():
    found = record("mnist_f1_sb_lb.json")

    def cell(regime, name, scale, digits):
        values = [scale * r[name] for r in found["records"] if r["regime"] == regime]
        assert len(values) == 5
        return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"

    rows = {}
    for line in README.splitlines():
        cells = [part.strip() for part in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 5:
            rows[cells[0]] = (cells[1], cells[3])
    for label, name, scale, digits in [
        ("test accuracy (%)", "test_accuracy", 100, (2, 2)),
        ("sharpness, epsilon 1e-3 (%)", "sharpness_0.001", 1, (2, 0)),
        ("distance from the start", "weight_distance", 1, (1, 2)),
    ]:
        assert rows[label] == (cell("SB", name, scale, digits[0]), cell("LB", name, scale, digits[1]))
    gap = found["gaps"][0]
    value, low, high = (100 * gap[key] for key in ("mean", "low", "high"))
    said = f"loses {value:.2f} points of test accuracy, with a 95 % interval of [{low:.2f}, {high:.2f}]"
    assert said in flowed(README)


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
