import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sklgap.datasets._base import check_data_home, check_labels, read_idx, read_records, scale_pixels

from .writers import idx_bytes, random_images, record_bytes, write_file

IMAGES = random_images(3, (4, 5), seed=0)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_is_read_back_exactly(tmp_path, suffix):
    path = tmp_path / f"images{suffix}"
    write_file(path, idx_bytes(IMAGES))
    np.testing.assert_array_equal(read_idx(path, 3), IMAGES)


@settings(max_examples=40, deadline=None)
@given(
    array=arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, max_side=6)),
    suffix=st.sampled_from(["", ".gz"]),
)
def test_idx_round_trip(array, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file{suffix}")
        write_file(path, idx_bytes(array))
        read = read_idx(path, array.ndim)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), suffix=st.sampled_from(["", ".gz"]))
def test_records_round_trip(data, suffix):
    n, shape = data.draw(st.integers(1, 4)), data.draw(array_shapes(min_dims=3, max_dims=3, max_side=4))
    images = data.draw(arrays(np.uint8, (n, *shape)))
    labels = data.draw(arrays(np.uint8, (n, data.draw(st.integers(1, 2)))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file{suffix}")
        write_file(path, record_bytes(images, labels))
        read_images, read_labels = read_records(path, labels.shape[1], shape)
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, labels)


GOOD = idx_bytes(IMAGES)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (GOOD[:-1], r"'.*images' must be 76 bytes long \(its header says \(3, 4, 5\)\), found 75\.$"),
        (GOOD + b"\0", r"'.*images' must be 76 bytes long \(its header says \(3, 4, 5\)\), found 77\.$"),
        (b"\0\0\x08\x01" + GOOD[4:], r"'.*images' must start with the idx magic number 00000803 .* found 00000801\.$"),
        (
            b"\0\0\x0d\x03" + GOOD[4:],
            r"'.*images' must start with .*unsigned bytes in 3 dimensions.* found 00000d03\.$",
        ),
        (
            b"\x1f\x8b\x08\0" + GOOD[4:],
            r"'.*images' must start with the idx magic number 00000803 .* found 1f8b0800\.$",
        ),
        (GOOD[:3], r"'.*images' must start with .* found 000008\.$"),
        (b"", r"'.*images' must start with .* found an empty file\.$"),
        (GOOD[:15], r"'.*images' must hold an idx header of 16 bytes, found 15 bytes in all\.$"),
    ],
    ids=["one-byte-short", "one-byte-long", "magic-dims", "magic-type", "renamed-gzip", "stub", "empty", "header"],
)
def test_bad_idx_is_refused(tmp_path, content, sentence):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_idx(path, 3)


def damage(content: bytes, how: str) -> bytes:
    if how == "truncated":
        return content[:-9]
    if how == "not gzip":
        return b"plain text"
    if how == "empty":
        return b"\x1f\x8b"
    # The last eight bytes are checksum and length; a flipped bit before them damages the data itself.
    position = len(content) - (8 if how == "checksum" else 30)
    return content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :]


@pytest.mark.parametrize("how", ["truncated", "not gzip", "empty", "checksum", "bits"])
def test_damaged_gzip_is_refused(tmp_path, how):
    path = tmp_path / "images.gz"
    write_file(path, idx_bytes(IMAGES))
    path.write_bytes(damage(path.read_bytes(), how))
    with pytest.raises(ValueError, match=r"'.*images\.gz' must be an undamaged gzip file, but unpacking it failed: "):
        read_idx(path, 3)


@pytest.mark.parametrize("change", [-1, 1, None])
def test_broken_records_are_refused(tmp_path, change):
    images = random_images(2, (1, 2, 3), seed=0)
    content = record_bytes(images, np.zeros(2, dtype=np.uint8))
    content = {-1: content[:-1], 1: content + b"\0", None: b""}[change]
    path = tmp_path / "batch.bin"
    path.write_bytes(content)
    sentence = rf"'.*batch\.bin' must hold one or more whole records of 7 bytes, found {len(content)} bytes\.$"
    with pytest.raises(ValueError, match=sentence):
        read_records(path, 1, (1, 2, 3))


@pytest.mark.parametrize("wrong", [10, 255, -1])
def test_label_out_of_range_is_refused(wrong):
    check_labels("file", np.array([0, 9]), 10)
    with pytest.raises(ValueError, match=rf"'file' must hold labels from 0 to 9, found {wrong} at index 2\.$"):
        check_labels("file", np.array([0, 9, wrong, 300]), 10)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_pixels_are_divided_by_255(dtype):
    values = np.arange(256, dtype=dtype).reshape(4, 64)
    X = scale_pixels([values[:1], values[1:]], (1, 8, 8))
    assert X.dtype == np.float32
    assert X.shape == (4, 1, 8, 8)
    assert X.flags.c_contiguous
    np.testing.assert_array_equal(X.ravel(), (np.arange(256) / 255).astype(np.float32))


def test_data_home_order(tmp_path, monkeypatch):
    argument, ours, theirs = (tmp_path / name for name in ("argument", "ours", "theirs"))
    monkeypatch.setenv("SKLGAP_DATA", str(ours))
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(theirs))
    assert check_data_home(argument) == check_data_home(str(argument)) == argument
    assert check_data_home(None) == ours
    monkeypatch.setenv("SKLGAP_DATA", "")
    assert check_data_home(None) == theirs
    monkeypatch.delenv("SCIKIT_LEARN_DATA")
    assert check_data_home(None) == Path.home() / "scikit_learn_data"
    assert check_data_home("~/x") == Path.home() / "x"
    assert list(tmp_path.iterdir()) == []


def test_data_home_must_be_a_folder(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(NotADirectoryError, match=r"^data_home must be a folder, got the file '.*file'\.$"):
        check_data_home(path)
    with pytest.raises(TypeError, match=r"^data_home must be a path or None, got 3\.$"):
        check_data_home(3)
