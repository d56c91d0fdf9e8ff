"""The files that a command leaves: self-contained, escaped, strict."""

import json
import sys

import pytest

from sklgap.cli import _report as report
from tests.experiments.records import comparison

NAME = 'a<b> & "ü" $x$ $y_'


@pytest.fixture
def figure():
    plt = report.pyplot()
    figure, ax = plt.subplots()
    ax.set_title(report.without_mathematics(NAME))
    yield figure
    plt.close(figure)


def strict(path):
    """Return what a JSON file has; what JSON does not know fails."""
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_files_and_their_content(tmp_path, figure):
    folder = tmp_path / "one" / "two"
    paths = report.write(folder, NAME, ["First answer.", "Second <answer>."], [comparison()], figure, ["was < read"])
    assert [path.name for path in paths] == ["report.html", "report.json", "report.png"]
    page = paths[0].read_text(encoding="utf-8")
    assert "http" not in page
    assert page.count("<img") == 1
    assert 'src="data:image/svg+xml;base64,' in page
    assert "a&lt;b&gt; &amp; &quot;ü&quot;" in page
    assert "<b>" not in page.partition("<table>")[0].partition("<div>")[0]
    order = [page.index(text) for text in ("<h1>", "First answer.", "Second &lt;answer&gt;.", "<img", "was &lt; read")]
    assert order == sorted(order)
    found = strict(paths[1])
    assert (found["title"], found["answers"], found["data"]) == (
        NAME,
        ["First answer.", "Second <answer>."],
        ["was < read"],
    )
    assert len(found["records"]) == 6
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_several_results_and_no_figure(tmp_path):
    paths = report.write(tmp_path, "t", ["a"], [comparison(), comparison(labels=("SB", "20"))], None)
    assert [path.name for path in paths] == ["report.html", "report.json"]
    assert "<img" not in paths[0].read_text(encoding="utf-8")
    found = strict(paths[1])
    assert [record["regime"] for record in found["records"][:2]] == ["SB", "LB"]
    assert [[record["regime"] for record in more["records"][:2]] for more in found["more"]] == [["SB", "20"]]


def test_without_matplotlib_one_sentence_says_so(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert report.pyplot() is None
    assert "pip install 'sklgap[plot]'" in capsys.readouterr().err
