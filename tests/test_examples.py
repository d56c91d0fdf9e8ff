"""The scripts of the gallery: what a page, a notebook and a downloaded script show, and records of figures."""

import argparse
import ast
import builtins
import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.experiments._estimate import Estimate
from sklgap.inspection import LossCurve, ParametricPlotDisplay
from sklgap.inspection._plot import _style
from sklgap.inspection._plot._stability_trajectory import StabilityCurve

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("plot_*.py"))
HIDDEN = re.compile(r"^# sphinx_gallery_start_ignore\n.*?^# sphinx_gallery_end_ignore\n?", re.DOTALL | re.MULTILINE)

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


@pytest.fixture
def helper(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import _options

    yield _options
    sys.modules.pop("_options", None)


def shown(script):
    """Return what readers see of a script, on a page or in a notebook."""
    return HIDDEN.sub("", script.read_text(encoding="utf-8"))


def names(tree, context):
    """Return the names that code reads, or writes."""
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}
    if context is ast.Store:
        found |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        found |= {(one.asname or one.name).partition(".")[0] for node in imports for one in node.names}
    return found


def test_there_are_scripts():
    assert len(SCRIPTS) >= 20


@each_script
def test_what_readers_see_runs_without_the_command_line(script):
    code = shown(script)
    assert not re.search(r"argparse|arguments|_options|__file__|sys\.argv|sphinx_gallery", code)
    tree = ast.parse(code)
    unknown = names(tree, ast.Load) - names(tree, ast.Store) - set(dir(builtins))
    assert not unknown, f"a notebook does not know {unknown}"


@each_script
def test_no_column_cuts_a_line(script):
    assert max(map(len, script.read_text(encoding="utf-8").split("\n"))) <= 88


@each_script
def test_a_page_begins_with_its_idea(script):
    title, line, empty, idea, *_ = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))).split("\n")
    assert line == "=" * len(title)
    assert not empty
    assert len(idea) > 40
    assert "--" not in idea


@each_script
def test_a_figure_can_be_drawn_again_from_its_record(script):
    text = script.read_text(encoding="utf-8")
    first, last = text[: text.index("\n# %%", text.index("# %%") + 1)], text[text.rindex("\n# %%") :]
    tree = ast.parse(last)
    saves = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("save", "_options.save")
    ]
    assert len(saves) == 1, "the last cell draws and saves"
    kept = {keyword.arg for keyword in saves[0].keywords if keyword.arg}
    for keyword in saves[0].keywords:
        if keyword.arg is None:  # **record, a dict that is written there
            (record,) = (
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == ast.unparse(keyword.value)
            )
            kept |= {key.value for key in record.keys}
    known = kept | names(ast.parse(first), ast.Store) & names(ast.parse(HIDDEN.sub("", first)), ast.Store)
    imported = {name for name in known if name in kept or name in imports(first)}
    imported |= {"save", "_options", "arguments"}
    assert names(tree, ast.Load) - names(tree, ast.Store) - set(dir(builtins)) <= imported


def imports(code):
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {(one.asname or one.name).partition(".")[0] for node in nodes for one in node.names}


def test_colours_of_the_examples_are_those_of_the_displays():
    known = {value for value in vars(_style).values() if isinstance(value, str) and value.startswith("#")}
    known |= {style.color for style in _style._OTHERS}
    for script in SCRIPTS:
        assert set(re.findall(r"#[0-9a-f]{6}\b", script.read_text(encoding="utf-8"))) <= known, script.name


VALUES = {
    "numbers": [1, 2.5, True, None, "text", float("inf")],
    "array": np.array([[1.0, np.nan, np.inf], [1e-12, 2.0, 3.0]]),
    "integers": np.arange(3),
    "keys": {("SB", "torch"): (1, 2), 3: np.float64(0.25)},
    "estimate": Estimate(1.0, -np.inf, 2.0, 3),
    "curve": StabilityCurve(np.arange(2), np.ones((2, 1)), np.array([2.0, np.nan])),
}


@pytest.mark.parametrize("name", VALUES)
def test_records_hold_what_figures_are_drawn_from(helper, name):
    text = json.dumps(helper.encoded(VALUES[name]), allow_nan=False)
    np.testing.assert_equal(helper.decoded(json.loads(text)), VALUES[name])


def test_records_hold_displays(helper):
    alphas = np.array([0.0, 1.0])
    curve = LossCurve(alphas, alphas + 0.1, alphas, batch_norm="batch", n_samples=7)
    display = ParametricPlotDisplay(curve, names=("SB", "LB")).plot(Figure().subplots())
    again = helper.decoded(json.loads(json.dumps(helper.encoded(display))))
    assert isinstance(again, ParametricPlotDisplay)
    assert again.names == ("SB", "LB")
    np.testing.assert_array_equal(again.train.loss, curve.loss)
    again.plot(Figure().subplots())


def test_records_make_no_objects_of_other_packages(helper):
    with pytest.raises(ValueError, match="objects of sklgap only; got os:system"):
        helper.decoded({"object": "os:system", "state": {"items": []}})


SCRIPT = '''"""
Title
=====
"""
# %%
import matplotlib.pyplot as plt

# sphinx_gallery_start_ignore
from _options import options, save

arguments = options(__doc__, trials={"type": int, "help": "trainings"})
# sphinx_gallery_end_ignore
values = [1, 2, arguments.trials]
print("trained")

# %%
figure, ax = plt.subplots()
ax.plot(values)
save(figure, arguments, values=values)
'''


def test_a_script_saves_its_figure_and_draws_it_again(helper, tmp_path, monkeypatch, capsys):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    script, figure = tmp_path / "plot_it.py", tmp_path / "it.png"
    script.write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", [str(script), "--trials", "3", "--output", str(figure)])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out == "trained\n"
    record = json.loads(figure.with_suffix(".json").read_text())
    assert record["command"] == "python examples/plot_it.py --trials 3 --output it.png"
    assert record["versions"]["numpy"] == np.__version__
    assert figure.exists()
    assert figure.with_suffix(".svg").exists()

    again = tmp_path / "again.svg"
    arguments = [str(script), "--draw", str(figure.with_suffix(".json")), "--output", str(again)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code is None
    assert capsys.readouterr().out == ""
    assert again.exists()
    assert not again.with_suffix(".json").exists()
    plt.close("all")


def test_the_line_of_c1_is_drawn_from_its_record(helper, tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    line = {"alphas": [-1, 0, 1], "loss": [0.5, 0.1, 0.2], "accuracy": [0.6, 0.9, 0.8], "n_samples": 5}
    record = tmp_path / "saved.json"
    record.write_text(json.dumps({"measured_again": {"line_train": line, "line_test": line}}))
    monkeypatch.setattr(sys, "argv", ["study_c1_cifar10.py", "--draw", str(record)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / "study_c1_cifar10.py"), run_name="__main__")
    assert end.value.code is None
    assert plt.gca().lines[0].get_ydata().tolist() == [60, 90, 80]
    assert record.with_suffix(".svg").exists()
    plt.close("all")


def test_without_an_output_nothing_is_saved(helper):
    helper.save(None, argparse.Namespace(output=None, draw=None), values=object())
