"""What a folder of saved work holds, what is removed, and what is never touched."""

import os
import time

import pytest
import torch

from sklgap import LBGapClassifier, __version__
from sklgap.__main__ import main
from sklgap.memory import Memory, prune, saved_work
from sklgap.memory import _folder as folder_file
from tests.tiny import blobs

DAY = 24 * 3600
KEYS = [f"{i:032x}" for i in range(4)]


@pytest.fixture
def folder(tmp_path):
    """Three entries of one, two and three days, and a damaged one."""
    memory = Memory(tmp_path, "some work")
    for i, kind in enumerate(["fit", "part", "trial"]):
        memory.write(KEYS[i], kind, {"weights": torch.zeros(100 * (i + 1))})
        os.utime(tmp_path / f"{KEYS[i]}.{kind}", (time.time() - (i + 1) * DAY,) * 2)
    return tmp_path


def names(works):
    return [work.path.name for work in works]


def test_a_fit_is_listed(tmp_path):
    X, y = blobs(24)
    LBGapClassifier(module__width=4, max_epochs=1, tol=None, random_state=7, memory=tmp_path).fit(X, y)
    (work,) = saved_work(tmp_path)
    assert (work.kind, work.finished, work.damaged) == ("fit", True, "")
    assert (work.sklgap, work.torch) == (__version__, torch.__version__)
    assert work.about == "LBGapClassifier F1, 24 samples, seed 7"
    assert work.n_bytes == work.path.stat().st_size
    assert (tmp_path / "FORMAT").read_bytes() == folder_file.MAGIC


def test_everything_is_listed_oldest_first(folder):
    works = saved_work(str(folder))
    assert [(work.kind, work.finished) for work in works] == [("trial", True), ("part", False), ("fit", True)]
    assert {work.about for work in works} == {"some work"}


def test_prune_by_age(folder):
    assert names(prune(folder, older_than=1.5 * DAY, dry_run=True)) == [f"{KEYS[2]}.trial", f"{KEYS[1]}.part"]
    assert len(saved_work(folder)) == 3
    assert len(prune(folder, older_than=1.5 * DAY)) == 2
    assert names(saved_work(folder)) == [f"{KEYS[0]}.fit"]


def test_prune_by_version(folder, monkeypatch):
    monkeypatch.setattr(folder_file, "__version__", "0.0.9")
    Memory(folder).write(KEYS[3], "fit", 1)
    assert names(prune(folder, other_versions=True)) == [f"{KEYS[3]}.fit"]
    assert prune(folder) == []


def test_prune_by_size(folder):
    works = saved_work(folder)
    assert names(prune(folder, max_size=works[1].n_bytes + works[2].n_bytes)) == [f"{KEYS[2]}.trial"]
    assert prune(folder, max_size=10**9) == []
    assert len(prune(folder, max_size=0)) == 2
    assert saved_work(folder) == []


def test_what_is_not_ours_is_never_touched(folder):
    ours = saved_work(folder)
    foreign = [
        "notes.txt",
        "model.fit",
        f"{KEYS[3]}.fit.bak",
        f"{KEYS[3]}.fit",
        "a.b.1.cc.tmp",
        f"{KEYS[3]}.pt",
        "x.tmp",
    ]
    for name in foreign:
        (folder / name).write_bytes(b"somebody's")
        os.utime(folder / name, (0, 0))
    (folder / f"{KEYS[3]}.part").symlink_to(folder / "notes.txt")
    (folder / f"{KEYS[3]}.trial").mkdir()
    assert saved_work(folder) == ours
    assert len(prune(folder, older_than=0, max_size=0, other_versions=True)) == 3
    assert {path.name for path in folder.iterdir()} == {*foreign, "FORMAT", f"{KEYS[3]}.part", f"{KEYS[3]}.trial"}


def test_left_over_temporary_files_go_when_they_are_old(folder):
    left = [f"{KEYS[0]}.fit.123.0123abcd.tmp", f"{KEYS[3]}.part.77.0123abcd.tmp", "FORMAT.9.0123abcd.tmp"]
    young = f"{KEYS[0]}.trial.123.0123abcd.tmp"
    for name in (*left, young):
        (folder / name).write_bytes(b"half")
    for name in left:
        os.utime(folder / name, (time.time() - 2 * folder_file.STALE_SECONDS,) * 2)
    assert sorted(names(prune(folder))) == sorted(left)
    assert (folder / young).exists()
    assert len(saved_work(folder)) == 3


def test_damaged_files_are_named_and_go(folder):
    path = folder / f"{KEYS[0]}.fit"
    path.write_bytes(path.read_bytes()[:-1])
    assert [work.damaged for work in saved_work(folder)] == ["", "", "is damaged"]
    assert names(prune(folder)) == [path.name]


@pytest.mark.parametrize("said", [b"sklgap memory 99\n", b"sklgap memory 1\n", b"", b"hello"])
def test_a_folder_of_another_format_is_refused(tmp_path, said):
    (tmp_path / "FORMAT").write_bytes(said)
    sentence = r"^memory must be a folder of format 2 .* says .*; use another folder, or remove this one\.$"
    for call in (Memory, saved_work, prune):
        with pytest.raises(ValueError, match=sentence):
            call(tmp_path)
    X, y = blobs(24)
    with pytest.raises(ValueError, match=sentence):
        LBGapClassifier(module__width=4, max_epochs=1, random_state=7, memory=tmp_path).fit(X, y)
    assert main(["memory", str(tmp_path)]) == 2


@pytest.mark.parametrize(
    ("given", "name"),
    [({"older_than": -1}, "older_than"), ({"max_size": "2GB"}, "max_size"), ({"other_versions": 1}, "other_versions")]
    + [({"dry_run": None}, "dry_run"), ({"older_than": float("nan")}, "older_than")],
)
def test_wrong_arguments(folder, given, name):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be "):
        prune(folder, **given)
    for bad in (None, 3, "", "no such folder", "x\0y", folder / f"{KEYS[0]}.fit"):
        with pytest.raises(ValueError, match=r"^folder must be the path of a folder"):
            saved_work(bad)


def test_the_command(folder, capsys):
    assert main(["memory", str(folder)]) == 0
    printed = capsys.readouterr().out
    for word in (
        "finished fit",
        "unfinished fit",
        "measurements",
        "some work",
        __version__,
        torch.__version__,
        "3 files",
    ):
        assert word in printed
    assert main(["memory", str(folder), "--older-than", "36h", "--dry-run"]) == 0
    assert "2 files" in capsys.readouterr().out
    assert len(saved_work(folder)) == 3
    assert main(["memory", str(folder), "--max-size", "0MB", "--other-versions"]) == 0
    assert saved_work(folder) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--older-than", "soon"],
            "sklgap: --older-than must be a number and s, m, h, d or w, such as 30d; got 'soon'.",
        ),
        (["--older-than", "-3d"], None),
        (
            ["--max-size", "2 elephants"],
            "sklgap: --max-size must be a number and KB, MB or GB, such as 2GB; got",
        ),
        (["--max-size", "2"], "sklgap: --max-size must be a number and KB, MB or GB, such as 2GB; got '2'."),
        (["--max-size", "0"], "sklgap: --max-size must be"),
        (["--max-size", "1.5"], "sklgap: --max-size must be"),
        (["--max-size", "nan"], "sklgap: --max-size must be"),
    ],
)
def test_wrong_options(folder, arguments, sentence, capsys):
    try:
        code = main(["memory", str(folder), *arguments])
    except SystemExit as stop:  # argparse's own
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    if sentence:
        assert error.startswith(sentence)
        assert error.count("\n") == 1
    assert main(["memory", str(folder / "nowhere")]) == 2


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["memory", "--help"])
    assert stop.value.code == 0
    assert "--older-than" in capsys.readouterr().out
