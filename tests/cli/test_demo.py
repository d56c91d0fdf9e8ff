"""The main job: three answers, one table, three files; here on few samples."""

import json

import matplotlib as mpl
import pytest

from sklgap.cli import _demo, main
from sklgap.experiments import _trials

SMALLER = {"N_TRAIN": 400, "N_VALID": 300, "N_TEST": 300, "SIZES": (40, 100, 400), "N_MEASURED": 50}
SETTING = {"module__width": 8, "module__n_layers": 2, "lr": 1e-2, "target_loss": 1.9, "tol": None, "max_epochs": 20}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    backend = mpl.get_backend()
    for name, value in SMALLER.items():
        monkeypatch.setattr(_demo, name, value)
    monkeypatch.setattr(_demo, "SETTING", SETTING)
    yield
    plt.close("all")
    plt.switch_backend(backend)


def test_the_main_job(tmp_path, capsys):
    assert main(["--trials", "2", "--jobs", "1", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    questions = ("How large may the batch be", "Why is a larger one worse", "What wins it back")
    places = [out.index(question) for question in questions]
    assert places == sorted(places)
    assert places[-1] < out.index("test accuracy (%)")
    assert out.rstrip().splitlines()[-1].startswith(questions[0])
    assert "ghost batch norm" in out
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert len(report["records"]) == 2 * 5
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index(questions[0]) < page.index("<table>")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "data:image/svg+xml;base64," in page
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_trials_are_paired_and_repeatable():
    one, other = _demo.study(3, n_trials=1), _demo.study(3, n_trials=1)
    assert [r["seed"] for r in one.table.records] == [one.table.records[0]["seed"]] * 5
    figures = [[r["test_accuracy"] for r in found.table.records] for found in (one, other)]
    assert figures[0] == figures[1]
    assert one.safe is None  # one trial has no bound
    assert len(one.answers()) == 1


def test_interrupted(tmp_path, capsys, monkeypatch):
    real, done = _trials.measure, []

    def measure(*args):
        if len(done) == 9:
            raise KeyboardInterrupt
        done.append(1)
        return real(*args)

    monkeypatch.setattr(_trials, "measure", measure)
    monkeypatch.setattr("sklgap.cli._report.pyplot", lambda: None)
    assert main(["--trials", "2", "--jobs", "1", "--output", str(tmp_path)]) == 130
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert len(report["records"]) == 9
    assert last == report["answers"][0]
    assert last.startswith("Interrupted")


def test_an_interrupted_answer_says_so(tmp_path, capsys, monkeypatch):
    found = _demo.study(n_trials=2)
    found.table.interrupted = True
    monkeypatch.setattr(_demo, "study", lambda *args, **kwargs: found)
    monkeypatch.setattr("sklgap.cli._report.pyplot", lambda: None)
    assert main(["--trials", "2", "--jobs", "1", "--output", str(tmp_path)]) == 130
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last.startswith("Interrupted before all fits finished. So far: How large may the batch be")


@pytest.mark.parametrize(
    "arguments", [["--trials", "1"], ["--trials", "0"], ["--trials", "two"], ["--what"]], ids=" ".join
)
def test_wrong_usage(arguments, tmp_path, capsys):
    try:
        code = main([*arguments, "--jobs", "1", "--output", str(tmp_path)])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert arguments[0] in err
    assert not list(tmp_path.iterdir())
