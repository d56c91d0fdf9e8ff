"""The command line."""

import json
import runpy
import sys

import matplotlib as mpl
import numpy as np
import pytest

from sklgap import __main__ as command_line
from sklgap.__main__ import main
from sklgap.datasets import _base
from tests.datasets.writers import MNIST_FILES, write_mnist

FAST = ["--trials", "2", "--epochs", "2", "--tol", "0", "--train-samples", "100", "--max-samples", "20"]
FAST += ["--epsilon", "1e-3", "--device", "cpu", "--jobs", "1"]


@pytest.fixture(autouse=True)
def _narrow_net_and_no_screen(monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    backend = mpl.get_backend()
    monkeypatch.setattr(command_line, "DIGITS_WIDTH", 8)
    yield
    assert plt.get_fignums() == []
    plt.switch_backend(backend)


@pytest.fixture
def no_figure(_narrow_net_and_no_screen):
    """Drawing takes longer than these comparisons do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        yield


def run(tmp_path, *arguments):
    return main([*FAST, "--output", str(tmp_path), *arguments])


def _report(tmp_path):
    return json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def _refused(capsys, tmp_path, *words):
    """Nothing is written; after the progress bar, if there was one, one sentence is on stderr."""
    out, err = capsys.readouterr()
    assert out == ""
    *bar, sentence = err.splitlines()
    assert sentence.startswith("sklgap: ")
    assert all("fit/s" in line or not line.strip() for line in bar), err
    for word in words:
        assert word in sentence
    assert list(tmp_path.glob("report.*")) == []


def test_the_digits(tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    assert run(folder) == 0
    out, err = capsys.readouterr()
    for words in ("100 training and 450 test samples, 2 paired trials", "sharpness 0.001", "regime gap, test accuracy"):
        assert words in out
    assert "train-test gap (points)" in out
    assert f"written: {folder / 'report.json'}, {folder / 'report.png'}" in out
    assert "4/4" in err  # the progress bar
    report = _report(folder)
    assert len(report["records"]) == 4
    assert report["settings"]["random_state"] == 0
    assert [record["n_epochs"] for record in report["records"]] == [2] * 4
    assert [record["batch_size"] for record in report["records"]] == [8, 10] * 2
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("no_figure")
def test_options_reach_the_comparison(tmp_path, capsys):
    options = ["--regimes", "10", "25", "0.5", "--trials", "1", "--epochs", "1"]
    options += ["--seed", "3", "--batch-norm", "population"]
    options += ["--subspace-dim", "3", "--epsilon", "1e-2", "1e-3"]
    assert run(tmp_path, *options) == 0
    report = _report(tmp_path)
    settings = report["settings"]
    assert (settings["reference"], settings["random_state"], settings["batch_norm"]) == ("10", 3, "population")
    assert (settings["epsilons"], settings["subspace_dims"]) == ([1e-2, 1e-3], [None, 3])
    assert (settings["n_train"], settings["n_samples_sharpness"]) == (100, 20)
    assert [record["batch_size"] for record in report["records"]] == [10, 25, 50]
    assert "sharpness_0.001_dim3" in report["records"][0]
    assert "sharpness 0.01, 3 dims" in capsys.readouterr().out


@pytest.mark.usefixtures("no_figure")
def test_repeatable_from_the_seed(tmp_path, capsys):
    losses = []
    for i, seed in enumerate(["0", "0", "1"]):
        assert run(tmp_path / str(i), "--seed", seed, "--trials", "1", "--epsilon") == 0
        losses.append([record["train_loss"] for record in _report(tmp_path / str(i))["records"]])
    assert losses[0] == losses[1] != losses[2]
    assert "sharpness" not in capsys.readouterr().out


def test_one_regime(tmp_path):
    assert run(tmp_path, "--regimes", "LB", "--trials", "1") == 0
    assert _report(tmp_path)["gaps"] == []
    assert (tmp_path / "report.png").exists()


@pytest.mark.usefixtures("no_figure")
@pytest.mark.parametrize("first", ["0.50", "064", "1e-1"])
def test_the_reference_may_be_written_in_any_way(tmp_path, capsys, first):
    options = ["--regimes", first, "LB", "--trials", "1", "--epochs", "1", "--epsilon"]
    assert run(tmp_path, *options) == 0, capsys.readouterr().err


def test_convolutional_nets_on_the_digits(tmp_path):
    arguments = command_line.parser().parse_args(["--net", "C1"])
    assert command_line.make_estimator(arguments).input_shape == (1, 8, 8)


@pytest.mark.parametrize(("dataset", "net"), [("digits", "F1"), ("mnist", "F1"), ("cifar10", "C1"), ("cifar100", "C1")])
def test_the_default_net(dataset, net):
    arguments = command_line.parser().parse_args(["--dataset", dataset])
    assert command_line.make_estimator(arguments).net == net


def test_the_defaults_are_the_papers():
    arguments = command_line.parser().parse_args([])
    assert (arguments.regimes, arguments.trials) == (["SB", "LB"], 5)
    assert (arguments.epsilon, arguments.batch_norm) == ([1e-3, 5e-4], "batch")


@pytest.mark.parametrize(("dataset", "epochs"), [("digits", 300), ("mnist", 100), ("cifar10", 100)])
def test_epochs_and_tol(dataset, epochs):
    model = command_line.make_estimator(command_line.parser().parse_args(["--dataset", dataset]))
    assert (model.max_epochs, model.tol) == (epochs, 1e-4)
    arguments = command_line.parser().parse_args(["--dataset", dataset, "--epochs", "7", "--tol", "0"])
    model = command_line.make_estimator(arguments)
    assert (model.max_epochs, model.tol) == (7, None)


def test_jobs():
    def jobs(*arguments):
        return command_line.n_jobs(command_line.parser().parse_args(arguments))

    assert jobs("--device", "cuda") is None
    assert jobs("--dataset", "mnist") is None
    assert jobs("--jobs", "2") == jobs("--jobs", "2", "--dataset", "mnist") == 2


# -- other data --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_figure")
def test_mnist_from_local_files(tmp_path, capsys):
    write_mnist(tmp_path / "data")
    options = ["--dataset", "mnist", "--net", "F1", "--data-home", str(tmp_path / "data"), "--regimes", "4", "12"]
    assert run(tmp_path / "out", *options, "--trials", "1", "--epochs", "1", "--epsilon") == 0
    assert "12 training and 5 test samples" in capsys.readouterr().out
    report = _report(tmp_path / "out")
    assert "'F1'" in report["settings"]["estimator"] or "LBGapClassifier(" in report["settings"]["estimator"]
    assert [record["batch_size"] for record in report["records"]] == [4, 12]


def test_a_missing_file(tmp_path, capsys):
    write_mnist(tmp_path / "data")
    missing = MNIST_FILES["test"][1]
    (tmp_path / "data" / missing).unlink()
    assert run(tmp_path, "--dataset", "mnist", "--data-home", str(tmp_path / "data")) == 2
    _refused(capsys, tmp_path, "MNIST is incomplete", missing)


def test_a_damaged_file(tmp_path, capsys):
    write_mnist(tmp_path / "data")
    path = tmp_path / "data" / MNIST_FILES["train"][0]
    path.write_bytes(path.read_bytes()[:-10])
    assert run(tmp_path, "--dataset", "mnist", "--data-home", str(tmp_path / "data")) == 2
    _refused(capsys, tmp_path, path.name, "bytes long")


def test_no_files_and_no_network(tmp_path, capsys, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(_base, "fetch_openml", no_network)
    assert run(tmp_path, "--dataset", "mnist", "--data-home", str(tmp_path / "nowhere")) == 2
    _refused(capsys, tmp_path, "no network", "nowhere")


# -- bad input ---------------------------------------------------------------------------------------------------------

BAD = {
    "regime": (["--regimes", "SB", "XL"], ["batch_regime must be", "'XL'"]),
    "batch size": (["--regimes", "SB", "-5"], ["must be", "-5"]),
    "net": (["--net", "F9"], ["net must be", "'F9'"]),
    "trials": (["--trials", "0"], ["n_trials must be", "got 0"]),
    "epochs": (["--epochs", "-1"], ["max_epochs must be", "got -1"]),
    "epsilon": (["--epsilon", "0"], ["epsilon must be", "0.0"]),
    "device": (["--device", "abacus"], ["device must be", "'abacus'"]),
    "subspace": (["--subspace-dim", "0"], ["subspace_dims must be", "got [None, 0]."]),
    "max-samples": (["--max-samples", "0"], ["max_samples must be", "got 0"]),
    "train-samples": (["--train-samples", "0"], ["--train-samples must be at least 1"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values(tmp_path, capsys, case):
    arguments, words = BAD[case]
    assert run(tmp_path, *arguments) == 2
    _refused(capsys, tmp_path, *words)


def test_no_epochs_are_not_the_default(tmp_path, monkeypatch):
    def compare(estimator, *args, **kwargs):
        raise ValueError(f"max_epochs={estimator.max_epochs}")

    monkeypatch.setattr(command_line, "compare_regimes", compare)
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("builtins.print", lambda *words, **kwargs: said.append(words[0]))
        assert run(tmp_path, "--epochs", "0") == 2
    assert said == ["sklgap: max_epochs=0"]


@pytest.mark.parametrize(
    "arguments", [["--dataset", "imagenet"], ["--batch-norm", "train"], ["--trials", "many"], ["--bogus"]], ids=str
)
def test_bad_options_are_argparses_to_say(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, *arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_an_output_that_cannot_be_a_folder_is_found_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command_line, "compare_regimes", lambda *args, **kwargs: pytest.fail("trained"))
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file") == 2
    _refused(capsys, tmp_path, "file")


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def test_ctrl_c_before_the_first_fit_had_finished(tmp_path, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "compare_regimes", interrupt)
    assert run(tmp_path) == 130
    _refused(capsys, tmp_path, "interrupted before the first fit had finished")


def test_ctrl_c_later_writes_what_had_finished(tmp_path, capsys, monkeypatch):
    original = command_line.compare_regimes

    def interrupted(*args, **kwargs):
        report = original(*args, **kwargs)
        report.records = report.records[:1]
        report.estimators_["LB"] = []
        report.interrupted = True
        return report

    monkeypatch.setattr(command_line, "compare_regimes", interrupted)
    assert run(tmp_path) == 130
    assert _report(tmp_path)["interrupted"] is True
    assert (tmp_path / "report.png").exists()
    assert "Interrupted: 1 of 4" in capsys.readouterr().out


def test_without_matplotlib(tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        assert run(tmp_path, "--trials", "1", "--epsilon") == 0
    assert "matplotlib is not installed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_help(monkeypatch, capsys):
    # As python -m would: the module has not been imported then.
    monkeypatch.delitem(sys.modules, "sklgap.__main__")
    monkeypatch.setattr(sys, "argv", ["sklgap", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("sklgap", run_name="__main__", alter_sys=True)
    assert not stop.value.code
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("usage: python -m sklgap")
    names = ["dataset", "net", "regimes", "trials", "epochs", "epsilon", "device", "seed", "jobs"]
    for option in [*names, "data-home", "output"]:
        assert f"--{option}" in out
    assert "sharpness (1e-3 5e-4)" in " ".join(out.split())


def test_digits_are_split_once_and_for_all():
    arguments = command_line.parser().parse_args([])
    one, other = (command_line.load(arguments) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert [len(part) for part in one] == [1347, 1347, 450, 450]
    assert 0 <= one[0].min() <= one[0].max() == 1
