import errno
import hashlib
import io
import json
import os
import pickle
import time
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import torch

from sklgap.memory import Memory, NotPlain, _folder, plain, unplain

VALUE = {"weights": torch.arange(6.0).reshape(2, 3), "history": [{"loss": 0.5, "n": 3}], "none": None, "pair": (1, "a")}


def test_what_is_written_is_read(tmp_path):
    memory = Memory(tmp_path / "new" / "folder")
    assert memory.read("k", "fit") is None
    assert memory.write("k", "fit", VALUE)
    value = Memory(tmp_path / "new" / "folder").read("k", "fit")
    assert torch.equal(value.pop("weights"), VALUE["weights"])
    assert value == {name: item for name, item in VALUE.items() if name != "weights"}
    assert memory.read("k", "part") is None
    assert memory.read("other", "fit") is None


def signed(body):
    """A forged file: the right size and checksum around a content."""
    line = json.dumps({"about": "", "sklgap": "", "torch": "", "bytes": len(body)}).encode() + b"\n"
    return _folder.MAGIC + hashlib.sha256(line + body).hexdigest().encode() + b"\n" + line + body


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def deflated(body):
    """The same archive, compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as archive, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in archive.infolist():
            packed.writestr(part.filename, archive.read(part))
    return buffer.getvalue()


def laughs(depth):
    value = [1.0]
    for _ in range(depth):
        value = [value, value]
    return value


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def entry(value):
    return {"key": "k", "kind": "fit", "value": value}


FORGED = {
    "no dict": lambda: saved([1, 2]),
    "missing names": lambda: saved({"key": "k", "value": 1}),
    "more names": lambda: saved({**entry(1), "more": 1}),
    "other key": lambda: saved({**entry(1), "key": "x"}),
    "unhashable key": lambda: saved({**entry(1), "key": torch.zeros(2)}),
    "compressed": lambda: deflated(saved(entry(torch.zeros(10**6)))),
    "expanded": lambda: saved(entry(torch.zeros(1).expand(10**9))),
    "laughs": lambda: saved(entry(laughs(60))),
    "deep": lambda: saved(entry(nested(150))),
    "sparse": lambda: saved(entry(torch.zeros(3, 3).to_sparse())),
    "meta": lambda: saved(entry(torch.zeros(10**6, device="meta"))),
    "views": lambda: saved(entry([torch.zeros(10**6)] * 50)),
    "empty": lambda: b"",
    "no archive": lambda: b"PK" + bytes(100),
    "half": lambda: saved(entry(torch.zeros(1000)))[:2000],
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_file_is_refused(tmp_path, case):
    memory = Memory(tmp_path)
    content = signed(FORGED[case]())
    (tmp_path / "k.fit").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.warns(UserWarning, match="the work is done again"):
            assert memory.read("k", "fit") is None
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_a_pickle_is_never_loaded(tmp_path):
    class Boom:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made by a pickle"),)

    memory = Memory(tmp_path / "m")
    memory.write("k", "fit", VALUE)
    path = tmp_path / "m" / "k.fit"
    body = pickle.dumps(Boom())
    for content in (body, signed(body)):
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="the work is done again"):
            assert memory.read("k", "fit") is None
    torch.save({"key": "k", "kind": "fit", "value": Boom()}, path)
    body = path.read_bytes()
    path.write_bytes(signed(body))
    with pytest.warns(UserWarning, match="holds what sklgap does not write"):
        assert memory.read("k", "fit") is None
    assert not (tmp_path / "made by a pickle").exists()


@pytest.mark.parametrize("position", [0, 5, 20, 60, 79, 81, 200, -1])
def test_every_flipped_byte_is_found(position, tmp_path):
    memory = Memory(tmp_path)
    memory.write("k", "fit", VALUE)
    content = bytearray((tmp_path / "k.fit").read_bytes())
    content[position] ^= 1
    (tmp_path / "k.fit").write_bytes(content)
    with pytest.warns(UserWarning, match="memory: .*k.fit is .*; the work is done again"):
        assert memory.read("k", "fit") is None


def test_a_full_disk_is_one_warning_and_leaves_nothing(tmp_path, monkeypatch):
    memory = Memory(tmp_path)
    memory.write("k", "fit", VALUE)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_folder.os, "fsync", full)
    with pytest.warns(UserWarning, match=r"could not be written to \(No space left on device\)\. The work continues"):
        assert not memory.write("k", "fit", {"a": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not memory.write("k", "fit", {"a": 2})
    assert [path.name for path in tmp_path.glob("*.*")] == ["k.fit"]
    monkeypatch.undo()
    assert torch.equal(memory.read("k", "fit")["weights"], VALUE["weights"])  # the old entry is whole
    assert memory.write("k", "fit", {"a": 3})
    assert memory.read("k", "fit") == {"a": 3}


@pytest.mark.skipif(os.name == "nt", reason="folders are made read-only in another way there")
def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    memory = Memory(tmp_path)
    memory.write("k", "fit", {"a": 1})
    real_open = open

    def refuse(path, mode="r", *args, **kwargs):  # as root, permissions would stop nothing
        if "x" in mode:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, mode, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.warns(UserWarning, match=r"could not be written to \(Permission denied\)"):
        assert not memory.write("other", "fit", {"a": 2})
    assert memory.read("k", "fit") == {"a": 1}


def test_forgetting_removes_what_the_dead_left(tmp_path):
    memory = Memory(tmp_path)
    memory.write("k", "part", VALUE)
    old, young = tmp_path / "k.part.1.aa.tmp", tmp_path / "k.part.2.bb.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    memory.forget("k", "part")
    memory.forget("k", "part")
    assert [path.name for path in tmp_path.glob("*.*")] == [young.name]  # somebody may be writing it


def test_plain_and_back():
    value = {
        "array": np.arange(4.0),
        "number": np.float32(0.5),
        "list": [np.int64(1), (True, None)],
        "set": {1, 2},
        "view": torch.arange(100.0)[:2],
    }
    told = plain(value)
    assert told["view"].untyped_storage().nbytes() == 8
    assert type(told["number"]) is float
    back = unplain(told)
    np.testing.assert_array_equal(back["array"], value["array"])
    assert back["list"] == [1, (True, None)]
    assert back["set"] == {1, 2}


@pytest.mark.parametrize("value", [object(), len, np.array(["a"]), [lambda: 1], {"a": torch.nn.Linear(1, 1)}])
def test_what_is_not_plain(value):
    with pytest.raises(NotPlain):
        plain(value)
