"""The API reference: every public name has one question, and every record defines its fields; links work offline."""

import dataclasses
import importlib.util
import io
import sys
from pathlib import Path

import pytest

EXTENSIONS = Path(__file__).parents[1] / "docs" / "_ext"


def extension(name):
    spec = importlib.util.spec_from_file_location(name, EXTENSIONS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


names = extension("public_names")
RECORDS = names.records()


@pytest.fixture
def links(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.setitem(sys.modules, "public_names", names)
    return extension("links")


def test_every_public_name_stands_once():
    by_question = [full.rpartition(".")[2] for found in names.questions().values() for full in found]
    assert sorted([*by_question, *names.displays(), *RECORDS]) == sorted(names.places())


def test_every_question_is_one_and_has_an_answer():
    for question, found in names.questions().items():
        assert question.endswith("?")
        assert found


def test_callbacks_for_other_libraries_have_a_question(links):
    assert extension("api_pages").ADAPTED in names.QUESTIONS


def test_names_that_no_question_has_stand_under_that_of_their_package(monkeypatch):
    question = "How curved is the loss, and is the training stable?"
    monkeypatch.setitem(names.QUESTIONS, question, ["hessian_trace"])
    found = names.questions()
    assert found[question] == ["sklgap.inspection.hessian_trace"]
    assert "sklgap.inspection.ritz_values" in found["How sharp or how flat is my model?"]


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_defines_its_fields(name):
    thing = names.value_of(names.places()[name], name)
    defined = names.fields(name)
    assert defined
    if dataclasses.is_dataclass(thing):
        assert {field.name for field in dataclasses.fields(thing)} <= set(defined)


def test_every_record_comes_from_somewhere():
    assert [name for name, makers in RECORDS.items() if not makers] == []
    assert {"sharpness", "adaptive_sharpness"} <= set(RECORDS["Sharpness"])
    assert "SafeBatchSize.tests" in RECORDS["NonInferiority"]


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("GridSearchCV", "sklearn.model_selection.GridSearchCV"),
        ("NeuralNetClassifier", "skorch.classifier.NeuralNetClassifier"),
        ("CrossEntropyLoss", "torch.nn.CrossEntropyLoss"),
    ],
)
def test_last_names_of_other_projects(links, name, full):
    assert full in links.foreign_names(name)


def test_a_name_that_nobody_has(links):
    assert links.foreign_names("GridSearhCV") == []


def test_no_inventory_is_asked_for_offline(links, monkeypatch, tmp_path):
    monkeypatch.setenv(links.OFFLINE, "1")
    monkeypatch.setattr(links.urllib.request, "urlopen", lambda *args, **kwargs: pytest.fail("asked the network"))
    assert links.inventories(tmp_path / "inventories") == {}


def test_without_a_network_the_build_goes_on(links, monkeypatch, tmp_path):
    def unreachable(address, timeout):
        raise OSError("no network")

    monkeypatch.delenv(links.OFFLINE, raising=False)
    monkeypatch.setattr(links.urllib.request, "urlopen", unreachable)
    (tmp_path / "torch.inv").write_bytes(links.INVENTORY)  # of an earlier build
    assert links.inventories(tmp_path) == {"torch": (links.PROJECTS["torch"], str(tmp_path / "torch.inv"))}


def test_only_inventories_are_saved(links, monkeypatch, tmp_path):
    def answer(address, timeout):
        return io.BytesIO(links.INVENTORY + b" 2" if "scikit-learn" in address else b"<html>Please log in</html>")

    monkeypatch.delenv(links.OFFLINE, raising=False)
    monkeypatch.setattr(links.urllib.request, "urlopen", answer)
    assert set(links.inventories(tmp_path)) == {"sklearn"}
