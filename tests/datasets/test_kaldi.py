"""The reader of Kaldi's tables, against files written byte by byte here and by kaldiio."""

import gzip
import pickle
import struct
import tracemalloc
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from sklgap.datasets._kaldi import read_integers, read_matrices

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def matrix_bytes(matrix):
    """A matrix as Kaldi writes it."""
    rows, columns = matrix.shape
    return b"\0BFM \4" + struct.pack("<i", rows) + b"\4" + struct.pack("<i", columns) + matrix.astype("<f4").tobytes()


def double_matrix_bytes(matrix):
    """A matrix of doubles as Kaldi writes it."""
    rows, columns = matrix.shape
    return b"\0BDM \4" + struct.pack("<i", rows) + b"\4" + struct.pack("<i", columns) + matrix.astype("<f8").tobytes()


def integer_bytes(values):
    """An integer vector as Kaldi writes it."""
    return b"\0B\4" + struct.pack("<i", len(values)) + b"".join(b"\4" + struct.pack("<i", v) for v in values)


def write_ark(path, values):
    """Write an archive, and return the offset of each value in it."""
    content, offsets = b"", {}
    for name, value in values.items():
        content += name.encode() + b" "
        offsets[name] = len(content)
        content += value
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return offsets


@pytest.mark.parametrize("name", ["feats.ark", "feats.ark.gz"])
def test_ark(tmp_path, name):
    write_ark(tmp_path / name, {"one": matrix_bytes(MATRIX), "zwölf": matrix_bytes(-MATRIX[:1])})
    (one, first), (twelve, second) = read_matrices(tmp_path / name)
    assert (one, twelve) == ("one", "zwölf")
    np.testing.assert_array_equal(first, MATRIX)
    np.testing.assert_array_equal(second, -MATRIX[:1])


def test_integers(tmp_path):
    write_ark(tmp_path / "ali.1.gz", {"one": integer_bytes([3, 0, 2**31 - 1]), "two": integer_bytes([])})
    found = dict(read_integers(tmp_path / "ali.1.gz"))
    assert {name: values.tolist() for name, values in found.items()} == {"one": [3, 0, 2**31 - 1], "two": []}
    assert found["one"].dtype == np.int64


def test_scp_in_any_order_over_several_archives(tmp_path):
    arks = [tmp_path / "raw 1.ark", tmp_path / "raw:2.ark"]  # a blank and a colon
    one = write_ark(arks[0], {"a": matrix_bytes(MATRIX), "b": matrix_bytes(2 * MATRIX)})
    two = write_ark(arks[1], {"c": matrix_bytes(3 * MATRIX)})
    lines = [f"b {arks[0]}:{one['b']}", f"c {arks[1]}:{two['c']}", "", f"a  {arks[0]}:{one['a']} "]
    (tmp_path / "feats.scp").write_text("\n".join(lines) + "\n")
    found = list(read_matrices(tmp_path / "feats.scp"))
    assert [(name, matrix[1, 2]) for name, matrix in found] == [("b", 10), ("c", 15), ("a", 5)]


def test_relative_paths(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    offsets = write_ark(tmp_path / "data" / "feats.ark", {"a": matrix_bytes(MATRIX)})
    scp = tmp_path / "data" / "feats.scp"
    scp.write_text(f"a feats.ark:{offsets['a']}\n")
    np.testing.assert_array_equal(dict(read_matrices(scp))["a"], MATRIX)  # beside the scp file
    scp.write_text(f"a data/feats.ark:{offsets['a']}\n")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(dict(read_matrices(scp))["a"], MATRIX)  # from the working folder
    other = write_ark(tmp_path / "feats.ark", {"other": matrix_bytes(5 * MATRIX)})
    scp.write_text(f"other feats.ark:{other['other']}\n")
    np.testing.assert_array_equal(dict(read_matrices(scp))["other"], 5 * MATRIX)  # which comes first


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("compression", [None, 2, 3, 5])
def test_what_kaldiio_writes(tmp_path, dtype, compression):
    matrix = np.random.default_rng(0).normal(size=(7, 4)).astype(dtype)
    ark, scp = str(tmp_path / "feats.ark"), str(tmp_path / "feats.scp")
    kaldiio.save_ark(ark, {"a": matrix, "b": 2 * matrix}, scp=scp, compression_method=compression)
    for path in (ark, scp):
        found = dict(read_matrices(path))
        assert found["a"].dtype == np.float32
        np.testing.assert_allclose(found["b"], 2 * matrix, atol=0 if dtype == np.float32 and not compression else 0.05)


class _Bomb:
    """Says so in a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "entry",
    [
        "touch {mark} |",
        "cat {ark} |",
        "| cat {ark}",
        "touch {mark} |:14",
        "|touch {mark}:14",
        "{ark}",
        "-",
        "{ark}:2[0:1]",
        "{ark}[0]:2",
        "{ark}:-2",
        "{ark}:two",
        "<(touch {mark}):2",
        "",
    ],
)
def test_an_scp_file_runs_nothing_and_names_files_only(tmp_path, entry):
    ark, mark, scp = tmp_path / "feats.ark", tmp_path / "mark", tmp_path / "feats.scp"
    write_ark(ark, {"a": matrix_bytes(MATRIX)})
    scp.write_text(f"good {ark}:2\nbad {entry.format(ark=ark, mark=mark)}\n")
    with pytest.raises(
        ValueError, match=r"must have lines 'utterance path:offset', without commands.*; line 2 is 'bad"
    ):
        list(read_matrices(scp))
    assert not mark.exists()
    # What looks like a path is one.
    for path in (f"touch {mark};", "-"):
        scp.write_text(f"bad {path}:14\n")
        with pytest.raises(FileNotFoundError, match=r"there is no such file\.$"):
            list(read_matrices(scp))
    assert not mark.exists()


@pytest.mark.parametrize("read", [read_matrices, read_integers])
@pytest.mark.parametrize("kind", ["ark", "scp"])
def test_no_pickle_is_loaded(tmp_path, read, kind):
    ark, mark = tmp_path / "feats.ark", tmp_path / "mark"
    kaldiio.save_ark(str(ark), {"a": _Bomb(mark)}, scp=str(tmp_path / "feats.scp"), write_function="pickle")
    with pytest.raises(ValueError, match=r"must hold a value in Kaldi's binary format for utterance 'a'"):
        list(read(tmp_path / f"feats.{kind}"))
    assert not mark.exists()
    list(kaldiio.load_ark(str(ark)))
    assert mark.exists()  # the bomb was a live one


def test_no_numpy_file_with_a_pickle_is_loaded(tmp_path):
    content = b"\0B" + pickle.dumps(_Bomb(tmp_path / "mark"))
    write_ark(tmp_path / "feats.ark", {"a": content})
    with pytest.raises(ValueError, match="that of utterance 'a' is damaged"):
        list(read_matrices(tmp_path / "feats.ark"))
    assert not (tmp_path / "mark").exists()


def test_every_truncation_is_one_sentence(tmp_path):
    path = tmp_path / "feats.ark"
    write_ark(path, {"a": matrix_bytes(MATRIX), "b": matrix_bytes(MATRIX)})
    whole = path.read_bytes()
    first = len(whole) // 2
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        if n in (0, first):  # whole utterances, or none
            assert len(list(read_matrices(path))) == n // first
            continue
        with pytest.raises(ValueError, match=rf"^'{path}' must ") as caught:
            list(read_matrices(path))
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)


def test_damage_never_ends_in_another_error(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "feats.ark"
    for read, value in ((read_matrices, matrix_bytes(MATRIX)), (read_integers, integer_bytes([1, 2, 3]))):
        write_ark(path, {"a": value})
        whole = bytearray(path.read_bytes())
        for _ in range(300):
            damaged = whole.copy()
            damaged[rng.integers(len(whole))] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                list(read(path))
            except ValueError as error:
                assert str(error).startswith(f"'{path}' ")  # noqa: PT017


@pytest.mark.parametrize(
    ("values", "read", "message"),
    [
        ({"a": integer_bytes([1])}, read_matrices, "utterance 'a' is damaged, truncated or of another type"),
        ({"a": matrix_bytes(MATRIX)}, read_integers, "utterance 'a' is damaged, truncated or of another type"),
        ({"a": b" [ 1 2 3 ]\n"}, read_integers, "in Kaldi's binary format for utterance 'a'"),
        ({"a": b"NPY\0\0\0"}, read_matrices, "in Kaldi's binary format for utterance 'a'"),
        ({"a": integer_bytes([2, -1])}, read_integers, "labels of at least 0; utterance 'a' has -1"),
        ({"a": matrix_bytes(np.array([[np.nan]]))}, read_matrices, "finite in float32; those of utterance 'a' are not"),
        ({"a": matrix_bytes(np.empty((0, 3)))}, read_matrices, r"a matrix of frames for utterance 'a'; found shape"),
        ({"a": b"\0BFV \4" + struct.pack("<if", 1, 2.0)}, read_matrices, r"a matrix of frames for utterance 'a'"),
        ({"": matrix_bytes(MATRIX)}, read_matrices, "at byte 1 it has no name of an utterance"),
        ({"x" * 2000: matrix_bytes(MATRIX)}, read_matrices, "has no name of an utterance"),
    ],
)
def test_what_does_not_belong(tmp_path, values, read, message):
    write_ark(tmp_path / "feats.ark", values)
    with pytest.raises(ValueError, match=message):
        list(read(tmp_path / "feats.ark"))


def test_an_utterance_twice(tmp_path):
    path = tmp_path / "feats.ark"
    write_ark(path, {"a": matrix_bytes(MATRIX)})
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(ValueError, match=r"must list every utterance once, but it lists 'a' twice\.$"):
        list(read_matrices(path))


def test_files_that_are_missing_or_of_another_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must be an scp or ark file, but it does not exist\.$"):
        list(read_matrices(tmp_path / "feats.scp"))
    with pytest.raises(FileNotFoundError, match="it does not exist"):
        list(read_matrices(tmp_path))
    scp = tmp_path / "feats.scp"
    scp.write_text("a nowhere.ark:2\n")
    with pytest.raises(FileNotFoundError, match=r"names 'nowhere.ark' for utterance 'a', but there is no such file\.$"):
        list(read_matrices(scp))
    scp.write_bytes(b"\xff\xfe\0")
    with pytest.raises(ValueError, match="must be a text file in UTF-8"):
        list(read_matrices(scp))
    (tmp_path / "feats.ark.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="must be an undamaged gzip file"):
        list(read_matrices(tmp_path / "feats.ark.gz"))


def test_an_offset_beyond_the_file(tmp_path):
    write_ark(tmp_path / "feats.ark", {"a": matrix_bytes(MATRIX)})
    for offset in (10**6, 10**30):
        (tmp_path / "feats.scp").write_text(f"a {tmp_path / 'feats.ark'}:{offset}\n")
        with pytest.raises(ValueError, match="utterance 'a'"):
            list(read_matrices(tmp_path / "feats.scp"))


def compressed_bytes(rows, columns, data=b"", kind=b"CM3", smallest=0.0, extent=1.0):
    return b"\0B" + kind + b" " + struct.pack("<ffii", smallest, extent, rows, columns) + data


HUGE = 2**31 - 1


@pytest.mark.parametrize(
    "value",
    [
        b"\0BFM \4" + struct.pack("<i", HUGE) + b"\4" + struct.pack("<i", HUGE),
        b"\0BDM \4" + struct.pack("<i", 2) + b"\4" + struct.pack("<i", HUGE) + bytes(64),
        b"\0BFV \4" + struct.pack("<i", HUGE) + bytes(64),
        b"\0BFM \4" + struct.pack("<i", -1) + b"\4" + struct.pack("<i", -1) + bytes(64),
        b"\0B\4" + struct.pack("<i", HUGE) + bytes(64),
        b"\0B\4" + struct.pack("<i", -5),
        compressed_bytes(HUGE, HUGE),
        compressed_bytes(HUGE, 2, bytes(64), b"CM"),
        compressed_bytes(2, HUGE, bytes(64), b"CM"),
        compressed_bytes(-2, -2, bytes(64), b"CM2"),
        b"\0BCM2\4" + bytes(64),
    ],
    ids=repr,
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_declared_sizes_ask_for_no_memory(tmp_path, value, suffix):
    path = tmp_path / f"feats.ark{suffix}"
    write_ark(path, {"a": value})
    for read in (read_matrices, read_integers):
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=r"that of utterance 'a' is damaged, truncated or of another type \("):
                list(read(path))
            assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("kind", [b"CM", b"CM2", b"CM3"])
@pytest.mark.parametrize(("smallest", "extent"), [(np.inf, 1.0), (0.0, np.nan), (3e38, 3e38)])
def test_compressed_values_beyond_float32(tmp_path, kind, smallest, extent):
    write_ark(tmp_path / "feats.ark", {"a": compressed_bytes(2, 3, b"\xff" * 64, kind, smallest, extent)})
    with pytest.raises(ValueError, match="finite in float32; those of utterance 'a' are not"):
        list(read_matrices(tmp_path / "feats.ark"))


@pytest.mark.parametrize("n_rows", [1, 5, 3000])
@pytest.mark.parametrize("compression", [2, 3, 4, 5, 6, 7])
def test_compressed_matrices_are_those_of_kaldiio(tmp_path, compression, n_rows, monkeypatch):
    monkeypatch.setattr("sklgap.datasets._kaldi._AT_ONCE", 4000)
    matrix = np.random.default_rng(0).normal(size=(n_rows, 4)).astype(np.float32)
    kaldiio.save_ark(str(tmp_path / "feats.ark"), {"a": matrix}, compression_method=compression)
    np.testing.assert_array_equal(
        dict(read_matrices(tmp_path / "feats.ark"))["a"], dict(kaldiio.load_ark(str(tmp_path / "feats.ark")))["a"]
    )


def test_an_archive_that_unpacks_to_too_much(tmp_path):
    path = tmp_path / "feats.ark.gz"
    write_ark(path, {name: matrix_bytes(np.zeros((500_000, 1))) for name in "abcdefghij"})
    with pytest.raises(ValueError, match=r"that of utterance 'i' .* if the file is right, unpack it with gunzip"):
        list(read_matrices(path))
    path.write_bytes(gzip.compress(b"x " * 2**24))
    with pytest.raises(ValueError, match=r"feats.ark.gz' must hold a value in Kaldi's binary format for utterance 'x'"):
        list(read_matrices(path))
