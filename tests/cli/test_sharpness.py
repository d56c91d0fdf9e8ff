"""``sharpness`` of saved weights: the values of `sklgap.sharpness`, and files that hold no such weights."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sklgap import LBGapClassifier, sharpness
from sklgap.cli import _sharpness
from sklgap.cli._load import load
from tests.cli.tables import refused, rows, run, write

pytest.importorskip("pandas")
SIZES = {"module__width": 64, "module__n_layers": 3}
FEW = ("--train-samples", "60")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A table, its training data as numbers, and a net that was trained on them."""
    path = write(tmp_path_factory.mktemp("table") / "t.csv", rows())
    arguments = _sharpness.parser().parse_args([str(path), "--target", "late", "--params", "w", *FEW])
    data = load(arguments)
    X = data.head.fit_transform(data.X).astype(np.float32)
    model = LBGapClassifier("F1", **SIZES, max_epochs=6, tol=None, random_state=0, device="cpu").fit(X, data.y)
    return path, X, data.y, model


def measured(capsys, path, params, *options):
    return run(capsys, "sharpness", path, "--target", "late", *FEW, "--params", params, *options)


@pytest.mark.parametrize("saved", ["skorch", "torch"])
@pytest.mark.parametrize(
    ("options", "kwargs"),
    [
        ((), {}),
        (("--epsilon", "1e-3", "5e-4", "--max-samples", "40"), {"epsilon": [1e-3, 5e-4], "max_samples": 40}),
        (("--subspace-dim", "5", "--solver", "lbfgsb-scaled"), {"subspace_dim": 5, "solver": "lbfgsb-scaled"}),
        (("--batch-norm", "running", "--seed", "0"), {"batch_norm": "running"}),
    ],
    ids=["default", "two boxes", "subspace", "running"],
)
def test_value_is_that_of_python(capsys, tmp_path, study, saved, options, kwargs):
    path, X, y, model = study
    if saved == "skorch":
        model.net_.save_params(f_params=tmp_path / "w.pt")
    else:
        torch.save(model.module_.state_dict(), tmp_path / "w.pt")
    found = measured(capsys, path, tmp_path / "w.pt", *options)
    assert found.code == 0
    own = sharpness(
        (model.module_, nn.CrossEntropyLoss()),
        X,
        y,
        **{"epsilon": [1e-3], "max_samples": 10_000, **kwargs},
        random_state=0,
    )
    values = " and ".join(f"{record.value:.4g} % at epsilon {record.epsilon:g}" for record in own)
    assert found.lines[-1] == f"Sharpness is {values}, at a training loss of {own[-1].f0:.3g}."
    assert "the outputs of the net stand for the classes in this order: 0, 1" in found.lines
    assert not any("Please note" in line for line in found.lines)


def test_weights_that_do_not_know_the_data_are_noted(capsys, tmp_path, study):
    path, _, _, model = study
    state = {name: torch.zeros_like(value) for name, value in model.module_.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    found = measured(capsys, path, tmp_path / "w.pt", "--epsilon", "1e-3")
    assert found.code == 0
    assert any("no more than always predicting the largest class" in line for line in found.lines)


def test_named_data_sets(capsys, tmp_path):
    data = load(_sharpness.parser().parse_args(["digits", "--params", "w"]))
    model = LBGapClassifier("F1", **SIZES, max_epochs=1, tol=None, random_state=0, device="cpu").fit(data.X, data.y)
    torch.save(model.module_.state_dict(), tmp_path / "w.pt")
    found = run(capsys, "sharpness", "digits", "--params", tmp_path / "w.pt", "--max-samples", "50")
    own = sharpness(
        (model.module_, nn.CrossEntropyLoss()), data.X.astype(np.float32), data.y, max_samples=50, random_state=0
    )
    assert found.lines[-1].startswith(f"Sharpness is {own.value:.4g} % at epsilon 0.001, at a training loss of")


class Opens:
    """What a pickle may do when it is loaded."""

    def __reduce__(self):
        return (open, ("/dev/null",))


def test_files_without_such_weights(capsys, tmp_path, study):
    path, _, _, model = study
    state = model.module_.state_dict()
    params, first = tmp_path / "w.pt", next(iter(state))
    missing = {name: value for name, value in state.items() if name != first}
    none = "the file holds no weights that can be loaded without running a pickle. Save module.state_dict()."
    wrong = {
        "must hold weights by name": [{"state_dict": state, "epoch": 3}, [1.0], torch.ones(3)],
        f"({first} is missing)": [missing],
        "(more is not in this net)": [{**state, "more": torch.ones(1)}],
        f"{first} must have shape {tuple(state[first].shape)}": [{**state, first: torch.ones(2, 3)}],
        f"{first} has numbers that are not finite": [{**state, first: state[first] / 0}],
        none: [model.module_, Opens()],
    }
    for sentence, contents in wrong.items():
        for content in contents:
            torch.save(content, params)
            assert sentence in refused(capsys, "sharpness", path, "--target", "late", *FEW, "--params", params)
    for content in (pickle.dumps(Opens()), pickle.dumps(state), b"", b"text"):
        params.write_bytes(content)
        assert none in refused(capsys, "sharpness", path, "--target", "late", *FEW, "--params", params)


def test_a_file_of_another_net(capsys, tmp_path, study):
    path, _, _, model = study
    torch.save(model.module_.state_dict(), tmp_path / "w.pt")
    options = ("--target", "late", "--params", tmp_path / "w.pt", *FEW)
    assert "the weights do not belong to this net" in refused(capsys, "sharpness", path, *options, "--net", "F2")
    assert "must have shape" in refused(capsys, "sharpness", path, *options, "--drop", "size")


def test_arguments_of_sharpness(capsys, tmp_path, study):
    path, _, _, model = study
    torch.save(model.module_.state_dict(), tmp_path / "w.pt")
    options = ("--target", "late", "--params", tmp_path / "w.pt", *FEW)
    missing = refused(capsys, "sharpness", path, "--target", "late", "--params", tmp_path / "no.pt")
    assert missing == f"{tmp_path / 'no.pt'}: the file does not exist."
    assert refused(capsys, "sharpness", path, *options, "--epsilon", "-1").startswith("--epsilon must be")
    assert refused(capsys, "sharpness", path, *options, "--subspace-dim", "0").startswith("--subspace-dim must be")
    assert refused(capsys, "sharpness", "--params", tmp_path / "w.pt").startswith("DATA is missing")
