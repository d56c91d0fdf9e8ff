"""``curve``: the safe batch size as the last line, exit codes, tuning, interruptions, and agreement with Python."""

import argparse
import json
import re

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

from sklgap import LBGapClassifier, batch_size_curve, largest_safe_batch_size
from sklgap.cli import _curve
from sklgap.cli._load import load
from sklgap.experiments import _trials
from tests.cli.tables import QUICK, refused, rows, run, write
from tests.experiments.records import curve as made_up

pytest.importorskip("pandas")


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "a$b$.csv", rows())


def curve(capsys, table, *options, quick=QUICK):
    """Run the command on the table; the report goes beside it."""
    return run(capsys, "curve", table, "--target", "late", "--output", table.parent / "out", *quick, *options)


@pytest.fixture
def no_picture(monkeypatch):
    """Leave out the picture, which takes longer than the training."""
    monkeypatch.setattr("sklgap.cli._report.pyplot", lambda: None)


SIZES = ("--batch-sizes", "8", "32")


def test_the_last_line_and_the_files(capsys, table):
    found = curve(capsys, table, *SIZES)
    assert found.code == 0
    assert re.fullmatch(
        r"(The largest batch size shown to be safe is 32: it loses less than 20 points of accuracy on validation data, "
        r"compared with batches of 8|No batch size above 8, the reference, is shown to lose less than 20 points of "
        r"accuracy on validation data), at a learning rate that was not tuned for each batch size \(--lr\)\.",
        found.lines[-1],
    )
    assert not any("call largest_safe_batch_size" in line for line in found.lines)  # it has been found
    described = next(i for i, line in enumerate(found.lines) if line.startswith("columns: "))
    assert described < next(i for i, line in enumerate(found.lines) if line.startswith("cost: "))
    out = table.parent / "out"
    assert found.lines[-2] == f"written: {out / 'report.html'}, {out / 'report.json'}, {out / 'report.png'}"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "http" not in page
    assert page.index("<h1>a$b$.csv") < page.index(found.lines[-1]) < page.index("<table>")
    content = json.loads((out / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content["answers"][0] == found.lines[-1]
    assert [record["batch_size"] for record in content["records"]] == [8, 32, 8, 32]
    assert content["more"][0]["batch_size"] in (8, 32)


def test_verdicts_agree_with_the_same_study_in_python(capsys, table, no_picture):
    write(table, rows(200))
    options = (*SIZES, "--scoring", "average_precision", "accuracy", "--optimizer", "sgd", "--epochs", "3")
    found = curve(capsys, table, *options)
    content = json.loads((table.parent / "out" / "report.json").read_text(encoding="utf-8"))
    data = load(_curve.parser().parse_args([str(table), "--target", "late"]))
    sizes = {"module__width": 64, "module__n_layers": 3}
    net = LBGapClassifier("F1", max_epochs=3, tol=None, optimizer=torch.optim.SGD, lr=0.01, **sizes)
    own = batch_size_curve(
        make_pipeline(data.head, net),
        data.X,
        data.y,
        data.X_test,
        data.y_test,
        batch_sizes=[8, 32],
        validation_fraction=content["settings"]["n_valid"] / len(data.y),
        n_trials=2,
        epsilon=[],
        scoring=["average_precision", "accuracy"],
        random_state=0,
        verbose=0,
    )
    safe = largest_safe_batch_size(own, 0.2)
    for name in ("train_loss", "valid_average_precision", "test_accuracy"):
        assert [record[name] for record in content["records"]] == [record[name] for record in own.records]
    assert content["more"][0]["batch_size"] == int(safe)
    assert "0.2 of average_precision" in found.lines[-1]
    assert (int(safe) == 32) == found.lines[-1].startswith("The largest batch size shown to be safe is 32")


OPTIMIZERS = {"adam": (torch.optim.Adam, 1e-3), "adamw": (torch.optim.AdamW, 1e-3), "sgd": (torch.optim.SGD, 0.1)}


@pytest.mark.parametrize(("optimizer", "kind"), OPTIMIZERS.items(), ids=OPTIMIZERS)
def test_optimizers_and_their_rates(capsys, table, monkeypatch, optimizer, kind):
    asked = []

    def enough(estimator, *data, **kwargs):
        asked.append((estimator[-1].get_params(), kwargs))
        raise ValueError("enough")

    monkeypatch.setattr("sklgap.experiments.batch_size_curve", enough)
    for options in ((), ("--lr", "0.7")):
        curve(capsys, table, "--optimizer", optimizer, *options, quick=("--margin", "0.2"))
    (tuned, how), (fixed, how_not) = asked
    assert tuned["optimizer"] is fixed["optimizer"] is kind[0]
    np.testing.assert_allclose(how["learning_rates"], [kind[1] / 3, kind[1], 3 * kind[1]])
    assert (how["lr"], how_not["lr"], fixed["lr"]) == ("tuned", "fixed", 0.7)
    assert "learning_rates" not in how_not


def test_momentum_and_validation_samples(capsys, table, no_picture):
    options = (*SIZES, "--optimizer", "sgd", "--momentum", "0.9", "--validation-fraction", "0.4")
    assert curve(capsys, table, *options).code == 0
    settings = json.loads((table.parent / "out" / "report.json").read_text(encoding="utf-8"))["settings"]
    assert "optimizer__momentum=0.9" in settings["estimator"].replace(" ", "").replace("\n", "")
    assert settings["n_valid"] == round(0.4 * (settings["n_valid"] + settings["n_train"]))


def test_the_default_margin_is_one_that_the_samples_can_show(capsys, table, no_picture):
    found = curve(capsys, table, *SIZES, quick=("--epochs", "1", "--trials", "2", "--jobs", "1", "--lr", "0.01"))
    assert found.code == 0
    assert "less than 11.12 points of accuracy" in found.lines[-1]  # 5 of 45 samples


def test_equal_losses(capsys, table, no_picture):
    options = ("--budget", "loss", "--target-loss", "0.6")
    assert curve(capsys, table, *SIZES, *options).code == 0
    content = json.loads((table.parent / "out" / "report.json").read_text(encoding="utf-8"))
    assert (content["settings"]["budget"], content["settings"]["target_loss"]) == ("loss", 0.6)


REFUSED = {
    "loss": (
        ["--budget", "loss"],
        "--budget loss needs --target-loss, the training loss",
    ),
    "negative loss": (["--budget", "loss", "--target-loss", "-1"], "--target-loss must be a number above 0 with"),
    "trials": (["--trials", "1"], "--trials must be at least 2, because one trial gives no bound; got 1."),
    "rate": (["--lr", "0"], "--lr must be a number above 0; got 0."),
    "margin": (["--margin", "0.01"], "--margin must be at least 0.1112 with 45 validation samples"),
    "negative margin": (
        ["--margin", "-1"],
        "--margin must be a number above 0 and below 1 (0.03 is 3 points); got -1.0.",
    ),
    "margin in units": (["--scoring", "neg_log_loss"], "--margin must be given for neg_log_loss, in its units"),
    "samples of a class": (["--scoring", "roc_auc"], "--scoring roc_auc needs at least 10 test samples of each class"),
    "score": (["--scoring", "acuracy"], "acuracy"),
    "large": (["--batch-sizes", "8", "400"], "--batch-sizes must be at most the 65 training samples"),
    "twice": (["--batch-sizes", "8", "8"], "--batch-sizes must all be different"),
    "assert a large one": (
        ["--assert-safe", "400"],
        "--assert-safe must be at most the number of training samples, 65;",
    ),
    "assert the reference": (
        ["--assert-safe", "8"],
        "larger than the reference, 8, which is the smallest batch",
    ),
    "assert one": (["--assert-safe", "1"], "--assert-safe must be a batch size of at least 2; got 1."),
    "momentum of ADAM": (["--momentum", "0.9"], "--momentum needs --optimizer sgd or rmsprop, because adam has no"),
    "momentum": (["--optimizer", "sgd", "--momentum", "1"], "--momentum must be at least 0 and below 1; got 1."),
    "validation": (["--validation-fraction", "1"], "--validation-fraction must be a number above 0 and below 1; got 1"),
    "few to validate": (["--validation-fraction", "0.01"], "validation samples; hold out"),
    "few of a class": (
        ["--scoring", "average_precision", "--validation-fraction", "0.1", "--test-fraction", "0.4"],
        "are held out. Use more samples or a larger --validation-fraction.",
    ),
    "epochs": (["--epochs", "0"], "--epochs must be"),
    "jobs": (["--jobs", "0"], "--jobs must"),
    "device": (["--device", "gpu7"], "--device must"),
    "seed": (["--seed", "-1"], "--seed must"),
}


@pytest.mark.parametrize(("options", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_found_before_training(capsys, table, no_picture, monkeypatch, options, sentence):
    monkeypatch.setattr(_trials, "run_trial", lambda *args: pytest.fail("trained"))
    quick = () if "--scoring" in options else ("--margin", "0.2")
    found = curve(capsys, table, *options, quick=("--jobs", "1", *quick))
    assert found.code == 2
    assert sentence in found.error
    assert found.error.count("\n") == 1


def test_the_output_must_be_a_folder(capsys, table, no_picture):
    said = refused(capsys, "curve", table, "--target", "late", "--output", table)
    assert said == f"--output: the folder {table} cannot be created (File exists)."


def test_memory_resumes(capsys, table, no_picture, monkeypatch):
    first = curve(capsys, table, *SIZES, "--memory", table.parent / "saved")
    monkeypatch.setattr(_trials, "measure", lambda *args: pytest.fail("measured again"))
    again = curve(capsys, table, *SIZES, "--memory", table.parent / "saved")
    assert (again.code, again.lines[-1]) == (first.code, first.lines[-1])


# -- --assert-safe ---------------------------------------------------------------------------------------------------


def asserted(capsys, monkeypatch, table, curve_, *options):
    """Run with --assert-safe 256 where training would come to this curve."""
    monkeypatch.setattr("sklgap.experiments.batch_size_curve", lambda *args, **kwargs: curve_)
    monkeypatch.setattr(_curve, "_sizes", lambda arguments, n_train: None)
    monkeypatch.setattr(_curve, "_margin", lambda arguments, n_valid: 0.02)
    quick = ("--jobs", "1", "--assert-safe", "256", *options)
    return curve(capsys, table, quick=quick)


GOOD, BETTER, LOW, NOISY = [0.95, 0.951, 0.949], [0.951, 0.951, 0.951], [0.85, 0.852, 0.849], [0.95, 0.90, 0.97]
ANSWERS = {
    "safe": (
        {32: GOOD, 256: BETTER},
        0,
        "shown to be safe: it loses less than 2 points of accuracy on validation data",
    ),
    "unsafe": ({32: GOOD, 256: LOW}, 3, "unsafe: it loses more than 2 points of accuracy on validation data"),
    "failed": ({32: GOOD, 256: [0.95, 0.951, 0.5]}, 3, "unsafe: it failed in 1 of 3 trials"),
    "inconclusive": (
        {32: GOOD, 256: NOISY},
        3,
        "not shown to be safe: the trials are inconclusive at a margin of 2 points of accuracy on validation data",
    ),
    "not tested": (
        {32: GOOD, 128: NOISY, 256: GOOD},
        3,
        "not shown to be safe: batches of 128 are not shown to be safe, and no larger batch size is tested after that",
    ),
    "not tested and worse": ({32: GOOD, 128: NOISY, 256: LOW}, 3, "unsafe: it loses more than 2 points"),
}


@pytest.mark.parametrize(("valid", "code", "sentence"), ANSWERS.values(), ids=ANSWERS)
def test_assert_safe(capsys, monkeypatch, table, no_picture, valid, code, sentence):
    found = asserted(capsys, monkeypatch, table, made_up(valid))
    assert found.code == code
    assert found.lines[-1].startswith(f"A batch size of 256 is {sentence}")
    assert found.lines[-1].endswith(".")
    untuned = asserted(capsys, monkeypatch, table, made_up(valid), "--lr", "0.01")
    assert (
        untuned.lines[-1]
        == f"{found.lines[-1][:-1]}, at a learning rate that was not tuned for each batch size (--lr)."
    )


@pytest.mark.parametrize(
    ("sizes", "tried"), [(None, [8, 30]), ([8, 16], [8, 16, 30]), ([8, 30], [8, 30]), ([0.2, 0.6666667], [9, 30])]
)
def test_the_size_to_assert_is_tried(sizes, tried):
    found = _curve._sizes(argparse.Namespace(assert_safe=30, batch_sizes=sizes), 45)
    assert [size if isinstance(size, int) else round(45 * size) for size in found] == tried


def test_assert_safe_from_the_shell(capsys, table, no_picture):
    found = curve(capsys, table, "--assert-safe", "30")
    assert found.code == (0 if " is shown to be safe: " in found.lines[-1] else 3)
    assert found.lines[-1].startswith("A batch size of 30 is ")


# -- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (1, "Interrupted before all fits finished."),
        (3, "Interrupted before all fits finished; so far "),
    ],
)
def test_interrupted(capsys, table, no_picture, monkeypatch, n, said):
    real, done = _trials.measure, []

    def measure(*args):
        if len(done) == n:
            raise KeyboardInterrupt
        done.append(1)
        return real(*args)

    monkeypatch.setattr(_trials, "measure", measure)
    found = curve(capsys, table, *SIZES)
    assert found.code == 130
    assert found.lines[-1].startswith(said)
    assert f"Interrupted: {n} of 4 fits" in "\n".join(found.lines)
    content = json.loads((table.parent / "out" / "report.json").read_text(encoding="utf-8"))
    assert len(content["records"]) == n
    assert found.lines[-1] in (table.parent / "out" / "report.html").read_text(encoding="utf-8")


def test_interrupted_while_rates_are_tried(capsys, table, no_picture, monkeypatch):
    real, done = _trials.measure, []

    def measure(*args):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return real(*args)

    monkeypatch.setattr(_trials, "measure", measure)
    found = curve(capsys, table, *SIZES, quick=("--epochs", "1", "--trials", "2", "--jobs", "1"))
    assert (found.code, found.lines[-1]) == (130, "Interrupted before all fits finished.")
    content = json.loads((table.parent / "out" / "report.json").read_text(encoding="utf-8"))
    assert (len(content["tuning"]), content["records"]) == (1, [])
    assert len(content["settings"]["learning_rates"]) == 3


def test_interrupted_while_the_report_is_written(capsys, table, no_picture, monkeypatch):
    def write(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sklgap.cli._report.write", write)
    found = curve(capsys, table, *SIZES)
    assert (found.code, found.lines[-1]) == (130, "Interrupted before the report finished.")


def test_an_unknown_score_is_named_first(capsys, table):
    """Not the number of test samples, which no number of samples would mend."""
    found = curve(capsys, table, *SIZES, "--scoring", "foo")
    assert found.code == 2
    assert found.error.startswith("sklgap: --scoring must be the name of one of scikit-learn's scorers")
    assert "foo" in found.error


def test_interrupted_before_the_first_fit(capsys, table, no_picture, monkeypatch):
    def measure(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_trials, "measure", measure)
    found = curve(capsys, table, *SIZES)
    assert (found.code, found.lines[-1]) == (130, "Interrupted before the first fit finished.")
