"""Commands, help, errors of usage, and exit codes."""

import os
import subprocess
import sys

import pytest

from sklgap import __version__
from sklgap.cli import COMMANDS, _options
from sklgap.cli import main as cli_main
from tests.cli.tables import refused, run


def shell(*arguments):
    """Run the command line in a process of its own, which says on stderr whether it has imported torch."""
    script = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print('torch' in sys.modules, 'sklearn' in sys.modules, file=sys.stderr))\n"
        f"sys.argv = ['sklgap', *{list(arguments)!r}]\n"
        "runpy.run_module('sklgap', run_name='__main__')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"}
    )


def test_help_needs_no_torch():
    found = shell("--help")
    assert found.returncode == 0
    assert found.stderr == "False False\n"
    assert all(f"  {name}" in found.stdout for name in COMMANDS)


def test_errors_of_usage_need_no_torch():
    found = shell("curve", "data.csv", "--lr", "fast")
    assert (found.returncode, found.stdout) == (2, "")
    sentence = "sklgap: argument --lr: invalid float value: 'fast'. See python -m sklgap curve --help."
    assert found.stderr == f"{sentence}\nFalse False\n"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "demo"])
def test_every_command_has_a_help(capsys, command):
    found = run(capsys, command, "--help")
    assert found.code == 0
    assert found.lines[0].startswith(f"usage: python -m sklgap {command} ")


def test_version(capsys):
    assert run(capsys, "--version").lines == [f"sklgap {__version__}"]


WRONG = {
    "command": (["curves"], "argument COMMAND: invalid choice: 'curves' (choose from 'demo', 'curve',"),
    "file": (["data.csv"], "argument COMMAND: invalid choice: 'data.csv'"),
    "choice": (["curve", "digits", "--budget", "time"], "argument --budget: invalid choice: 'time'"),
    "net": (["explain", "digits", "--net", "F3"], "argument --net: invalid choice: 'F3' (choose from 'F1', 'F2',"),
    "option": (["compare", "digits", "--speed", "9"], "unrecognized arguments: --speed 9. See"),
    "size": (["curve", "digits", "--batch-sizes", "big"], "must be a batch size or a fraction; got 'big'. See"),
    "missing": (["sharpness", "digits"], "the following arguments are required: --params. See"),
}


@pytest.mark.parametrize(("arguments", "sentence"), WRONG.values(), ids=WRONG)
def test_wrong_usage_is_one_sentence(capsys, arguments, sentence):
    assert sentence in refused(capsys, *arguments)


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError, FileNotFoundError])
def test_errors_become_one_sentence(capsys, monkeypatch, error):
    def fails(argv):
        raise error("n_trials must be\n  more.")

    monkeypatch.setattr("sklgap.cli._memory.main", fails)
    assert refused(capsys, "memory") == "--trials must be more."


def test_other_errors_are_ours_and_stay(monkeypatch):
    def fails(argv):
        raise ZeroDivisionError

    monkeypatch.setattr("sklgap.cli._memory.main", fails)
    with pytest.raises(ZeroDivisionError):
        cli_main(["memory"])


def test_an_interruption_before_anything_had_finished(capsys, monkeypatch):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("sklgap.cli._memory.main", interrupted)
    found = run(capsys, "memory")
    assert (found.code, found.lines) == (130, ["Interrupted before the first fit finished."])


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        ("sklgap.cli._memory._list_or_remove", ["memory", "."], "Interrupted before the command finished."),
        ("sklgap.cli._sharpness._measure", ["sharpness", "digits"], "Interrupted before the measurement finished."),
        ("sklgap.cli._sharpness.load", ["sharpness", "digits"], "Interrupted before the measurement finished."),
    ],
)
def test_an_interruption_of_a_command_without_fits(capsys, monkeypatch, tmp_path, function, arguments, said):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(function, interrupted)
    (tmp_path / "w.pt").touch()
    options = ["--params", tmp_path / "w.pt"] if arguments[0] == "sharpness" else []
    found = run(capsys, *arguments, *options)
    assert (found.code, found.lines) == (130, [said])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr of the estimator must be above 0.", "--lr must be above 0."),
        ("margin cannot be shown on 3 samples.", "--margin cannot be shown on 3 samples."),
        ("lr and more must be", "lr and more must be"),
        ("the margin must be", "the margin must be"),
        ("net must be one of", "--net must be one of"),
    ],
)
def test_messages_name_the_option(capsys, text, said):
    assert _options.complain(ValueError(text)) == 2
    assert capsys.readouterr().err == f"sklgap: {said}\n"
