import copy
import json
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import sklgap
from sklgap.inspection import (
    Flatness,
    FlatnessTable,
    adaptive_sharpness,
    average_sharpness,
    ball_sharpness,
    fisher_trace,
    flatness,
    hessian_eigenvalues,
    hessian_trace,
    m_sharpness,
    sharpness,
)
from sklgap.inspection._flatness import MEASURES, check_measures
from sklgap.objective import Objective
from tests.cases import no_global_random_numbers
from tests.inspection.flat_nets import dense_hessian, relu_net
from tests.landscapes import landscape, vector
from tests.tiny import blobs, small


def norm_of_weights(objective):
    return float(objective.theta0.norm())


def noisy(objective, *, random_state):
    return float(np.random.RandomState(random_state).rand())


@pytest.fixture(scope="module")
def net():
    pair, X, y = relu_net()
    return Objective(*pair, (X, y))


@pytest.fixture(scope="module")
def table(net):
    return flatness(net, random_state=0)


def test_every_measure_is_what_its_function_gives(net, table):
    assert list(table.measures) == list(MEASURES)
    assert table.left_out == {}
    expected = {
        "sharpness": sharpness(net, random_state=0).value,
        "adaptive_sharpness": adaptive_sharpness(net, random_state=0).value,
        "average_sharpness": average_sharpness(net, random_state=0).value,
        "adaptive_average_sharpness": average_sharpness(net, adaptive=True, random_state=0).value,
        "ball_sharpness": ball_sharpness(net, random_state=0).value,
        "adaptive_ball_sharpness": ball_sharpness(net, adaptive=True, random_state=0).value,
        "m_sharpness": m_sharpness(net, random_state=0).value,
        "fisher_trace": fisher_trace(net, random_state=0).value,
        "hessian_trace": hessian_trace(net, random_state=0).value,
        "largest_eigenvalue": hessian_eigenvalues(net, k=1, random_state=0).eigenvalues[0],
    }
    for label, value in expected.items():
        assert table.measures[label].value == value


def test_the_curvatures_of_the_dense_hessian(table):
    pair, X, y = relu_net()
    hessian = dense_hessian(pair, X, y)
    assert table.measures["hessian_trace"].value == pytest.approx(float(hessian.trace()), rel=1e-9)
    assert table.measures["largest_eigenvalue"].value == pytest.approx(
        float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-6
    )


def test_it_prints_and_leaves(table, tmp_path):
    text = str(table)
    assert text.splitlines()[0] == "Measures of flatness on 30 samples (batch norm: batch). A larger value is sharper."
    for label, record in table.measures.items():
        assert f"{label} " in text
        assert record.value_text() in text
    assert len(table.to_frame()) == len(table.records) == len(MEASURES)
    saved = json.loads(table.to_json(tmp_path / "flat.json"))
    assert saved == json.loads((tmp_path / "flat.json").read_text(encoding="utf-8"))
    assert saved["records"][0]["value"] == table.measures["sharpness"].value
    assert "<table>" in table._repr_html_()
    latex, markdown = table.to_latex(tmp_path / "flat.tex"), table.to_markdown()
    assert (tmp_path / "flat.tex").read_text(encoding="utf-8") == latex + "\n"
    assert latex.count(r"\\") == markdown.count("\n") == len(MEASURES) + 1
    assert r"hessian\_trace" in latex
    assert "| hessian_trace |" in markdown
    assert "Worst cases are lower bounds, because a search found them." in table.notes


def test_records_are_repeated_by_the_same_random_state(net, table):
    again = flatness(net, random_state=0)
    assert again.records == table.records
    assert (
        flatness(net, measures="average_sharpness", random_state=1).records
        != flatness(net, measures="average_sharpness", random_state=0).records
    )
    shared = np.random.RandomState(0)
    assert flatness(net, measures="m_sharpness", random_state=shared).measures["m_sharpness"].n_samples == 30


def test_the_module_is_as_before():
    (module, criterion), X, y = relu_net()
    module.train()
    before = copy.deepcopy(module.state_dict())
    with no_global_random_numbers():
        flatness((module, criterion), X, y, random_state=0)
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_what_the_loss_does_not_allow_is_left_out_and_told():
    (module, _), X, _ = relu_net()
    found = flatness((module, nn.MSELoss()), X, module(X).detach() + 1, random_state=0)
    left = ["normalized_average_sharpness", "normalized_ball_sharpness", "fisher_sharpness", "fisher_trace"]
    assert list(found.left_out) == left
    assert [note.split(" is left out. ")[0] for note in found.notes[: len(left)]] == left
    with pytest.raises(ValueError, match=r"^The criterion must be torch.nn.CrossEntropyLoss"):
        flatness((module, nn.MSELoss()), X, module(X).detach() + 1, measures="fisher_trace")


def test_weights_that_are_all_zero():
    (module, criterion), X, y = relu_net()
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    found = flatness((module, criterion), X, y, random_state=0)
    assert {"adaptive_sharpness", "adaptive_ball_sharpness", "fisher_sharpness"} <= set(found.left_out)
    assert "The weights must not all be zero" in found.left_out["adaptive_ball_sharpness"]


def test_an_estimator_of_ours_and_batch_norm():
    X, y = blobs(60)
    model = small(max_epochs=2, random_state=0).fit(X, y)
    found = sklgap.flatness(model, X, y, max_samples=40, random_state=0)
    assert found.left_out == {}
    assert {record.n_samples for record in found.measures.values()} == {40}
    some = ["sharpness", "average_sharpness", "ball_sharpness", "m_sharpness", "fisher_trace", "largest_eigenvalue"]
    running = flatness(model, X, y, measures=some, max_samples=20, batch_norm="running", random_state=0)
    assert {record.batch_norm for record in running.measures.values()} == {"running"}


@pytest.mark.parametrize(
    ("measures", "labels"),
    [
        (None, list(MEASURES)),
        ("sharpness", ["sharpness"]),
        (["hessian_trace", "m_sharpness"], ["hessian_trace", "m_sharpness"]),
        (("m_sharpness",), ["m_sharpness"]),
        ({"norm": norm_of_weights, "trace": "hessian_trace"}, ["norm", "trace"]),
    ],
)
def test_measures_by_name_or_function(net, measures, labels):
    found = check_measures(measures)
    assert list(found) == labels
    for measure in pickle.loads(pickle.dumps(found)).values():
        assert isinstance(measure(net, random_state=0), Flatness)


def test_functions_of_the_user(net):
    own = {
        "norm": norm_of_weights,
        "noisy": noisy,
        "wide": partial(ball_sharpness, rho=0.3),
        "int": lambda objective: 3,
    }
    found = flatness(net, measures=own, random_state=7).measures
    assert found["norm"].value == norm_of_weights(net)
    assert math.isnan(found["norm"].n_gradients)
    assert found["norm"].f0 == net.value()
    assert found["noisy"].value == np.random.RandomState(7).rand()
    assert found["int"].value == 3.0
    assert found["wide"].value == ball_sharpness(net, rho=0.3, random_state=7).value
    assert [record.name for record in found.values()] == list(own)
    row = str(flatness(net, measures={"norm": norm_of_weights})).splitlines()[3].split()
    assert row == ["norm", f"{norm_of_weights(net):.4g}", f"{net.value():.2e}", "-"]
    assert json.loads(flatness(net, measures={"norm": norm_of_weights}).to_json())["records"][0]["n_gradients"] is None


@pytest.mark.parametrize(
    ("measures", "sentence"),
    [
        ("sharpnes", r"^measures must contain names from 'sharpness', .*; got 'sharpnes'\.$"),
        (["sharpness", "sharpness"], r"^measures must contain each measure once; got 'sharpness' several times\.$"),
        ([], r"^measures must contain at least one measure; got an empty one\.$"),
        ({}, r"^measures must contain at least one measure"),
        (3, r"^measures must be None, a name, a sequence of names, or a dict"),
        ([norm_of_weights], r"^measures must contain names from"),
        ({1: norm_of_weights}, r"^measures must contain labels that are strings; got 1\.$"),
        ({"a": 3}, r"^measures\['a'\] must be a name or a function of an Objective"),
        ({"a": float}, r"^measures\['a'\] must be a name or a function of an Objective"),
        ({"a": lambda objective: "x"}, r"^measures\['a'\] must return a Flatness or a number; got 'x'\.$"),
        ({"a": lambda objective: True}, r"^measures\['a'\] must return a Flatness or a number; got True\.$"),
        ({"a": lambda objective: 1 / 0}, r"^measures\['a'\] failed on the Objective with ZeroDivisionError"),
        ({"a": len}, r"^measures\['a'\] failed on the Objective with TypeError"),
    ],
)
def test_what_is_refused(net, measures, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        flatness(net, measures=measures)


def test_a_loss_that_is_not_finite():
    module, criterion, X, y = landscape(lambda t: torch.log(t).sum(), -vector(3, 0).abs())
    with pytest.raises(ValueError, match=r"^The loss must be finite at the measured point; got nan\.$"):
        flatness((module, criterion), X, y)


def test_a_record_as_text():
    record = Flatness("it", 2.5, 0.25, 0.1, {"rho": 0.05, "m": 3}, 12.0, 1000, "batch", "%", "found", notes=("Look.",))
    assert str(record) == (
        "it 2.5 ± 0.25 % (rho 0.05, m 3, 1,000 samples, loss 1.00e-01, batch norm: batch, 12 gradients; found) Look."
    )
    assert record.to_dict()["notes"] == ["Look."]
    assert str(FlatnessTable({"it": record}, {})).count("\n") > 3
