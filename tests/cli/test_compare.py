"""``compare`` and ``explain``: last lines, files, interruptions."""

import json

import pytest

from sklgap.experiments import _trials
from tests.cli.tables import refused, rows, run, write

pytest.importorskip("pandas")
QUICK = ("--epochs", "1", "--trials", "2", "--jobs", "1")


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "t.csv", rows())


@pytest.fixture
def no_picture(monkeypatch):
    """Leave out the picture, which takes longer than the training."""
    monkeypatch.setattr("sklgap.cli._report.pyplot", lambda: None)


def of_table(capsys, command, table, *options):
    """Run a command on the table; the report goes beside it."""
    return run(capsys, command, table, "--target", "late", "--output", table.parent / "out", *QUICK, *options)


def content(table):
    """Return what the report has."""
    text = (table.parent / "out" / "report.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=pytest.fail)


def test_compare(capsys, table):
    found = of_table(capsys, "compare", table, "--regimes", "8", "0.3", "--epsilon", "1e-3", "--max-samples", "30")
    assert found.code == 0
    assert found.lines[-1] == content(table)["answers"][0]
    assert found.lines[-1].startswith(("0.3 is", "No regime loses to 8"))
    assert [record["batch_size"] for record in content(table)["records"]] == [8, 27, 8, 27]
    assert (table.parent / "out" / "report.png").is_file()


def test_compare_draws_the_line_between_nets_that_take_numbers(capsys, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("sklgap.cli._report.write", lambda *args: drawn.append(args[4]) or [])
    found = run(capsys, "compare", "digits", "--train-samples", "60", *QUICK, "--epsilon", "--output", tmp_path)
    assert found.code == 0
    assert found.error.count("Warning") == 0
    _, line = drawn[0].axes[:2]
    assert len(line.lines) >= 2  # training and test data


def test_compare_of_one_regime_says_so(capsys, table, no_picture):
    found = of_table(capsys, "compare", table, "--regimes", "8", "--epsilon")
    assert (found.code, found.lines[-1]) == (0, "Only 8 was trained, so there is nothing to compare.")


def test_explain(capsys, table):
    found = of_table(capsys, "explain", table, "--small", "8", "--large", "0.4")
    assert found.code == 0
    assert found.lines[-1].startswith("The large batch loses ")
    assert " fewer updates " in found.lines[-1]
    assert found.lines[-1] == content(table)["answers"][0]
    assert content(table)["settings"]["batch_sizes"] == {"small": 8, "large": 36}
    assert (table.parent / "out" / "report.png").is_file()


@pytest.mark.parametrize(
    ("options", "sizes"), [((), ("SB", "LB")), (("--small", "8"), (8, "LB")), (("--large", "0.2"), ("SB", 0.2))]
)
def test_explain_knows_the_names_of_the_papers(capsys, table, monkeypatch, options, sizes):
    asked = []

    def enough(*data, small, large, **kwargs):
        asked.append((small, large))
        raise ValueError("enough")

    monkeypatch.setattr("sklgap.experiments.explain_gap", enough)
    of_table(capsys, "explain", table, *options)
    assert asked == [sizes]


def refused_after(said):
    """Return the one sentence of a command that had described its data."""
    assert said.code == 2
    assert said.error.count("\n") == 1
    return said.error.removeprefix("sklgap: ").strip()


WRONG = {
    "regime": (("compare", "--regimes", "SB", "XL"), "must be a batch size or a fraction; got 'XL'"),
    "twice": (("compare", "--regimes", "8", "8"), "--regimes must have different labels; got [8, 8]."),
    "epsilon": (("compare", "--epsilon", "-1"), "--epsilon must be"),
    "dimensions": (("compare", "--subspace-dim", "0"), "--subspace-dim must"),
    "samples": (("compare", "--max-samples", "0"), "--max-samples must be"),
    "small": (("explain", "--small", "0"), "--small must be"),
    "order": (
        ("explain", "--small", "20", "--large", "0.1"),
        "--small must be a smaller batch size than large, 9; got 20.",
    ),
    "convolution": (("explain", "--net", "C1"), "input_shape"),
    "unknown scoring": (("compare", "--scoring", "foo"), "--scoring must be the name of one of scikit-learn's scorers"),
    "one unknown scoring": (("explain", "--scoring", "f1", "foo"), "--scoring must be the name of one of"),
    "scoring": (("explain", "--scoring", "f1"), "--scoring f1 needs at least 10 test samples of each class"),
}


@pytest.mark.parametrize(("arguments", "sentence"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_one_sentence(capsys, table, monkeypatch, arguments, sentence):
    monkeypatch.setattr(_trials, "run_trial", lambda *args: pytest.fail("trained"))
    command, *options = arguments
    found = run(capsys, command, table, "--target", "late", "--output", table.parent, "--jobs", "1", *options)
    assert sentence in refused_after(found)


@pytest.mark.parametrize(("command", "n"), [("compare", 0), ("compare", 1), ("compare", 3), ("explain", 1)])
def test_interrupted(capsys, table, no_picture, monkeypatch, command, n):
    real, done = _trials.measure, []

    def measure(*args):
        if len(done) == n:
            raise KeyboardInterrupt
        done.append(1)
        return real(*args)

    monkeypatch.setattr(_trials, "measure", measure)
    options = ("--epsilon",) if command == "compare" else ("--small", "8", "--large", "30")
    found = of_table(capsys, command, table, *options)
    assert found.code == 130
    if n:
        assert len(content(table)["records"]) == n
        assert found.lines[-1] == content(table)["answers"][0]
        assert found.lines[-1].startswith("Interrupted before all fits finished. So far: ")
        assert any(f"Interrupted: {n} of " in line for line in found.lines)
    else:
        assert found.lines[-1] == "Interrupted before the first fit finished."


@pytest.mark.parametrize("command", ["compare", "explain"])
def test_interrupted_while_the_report_is_written(capsys, table, no_picture, monkeypatch, command):
    def write(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sklgap.cli._report.write", write)
    options = ("--epsilon",) if command == "compare" else ("--small", "8", "--large", "30")
    found = of_table(capsys, command, table, *options)
    assert (found.code, found.lines[-1]) == (130, "Interrupted before the report finished.")


def test_a_missing_file(capsys):
    for command in ("compare", "explain"):
        assert refused(capsys, command, "no.csv") == "no.csv: the file does not exist."
