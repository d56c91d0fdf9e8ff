"""A data file gives no more than it may hold."""

import gzip
import tracemalloc
from functools import cache

import numpy as np
import pytest

from sklgap.datasets import fetch_cifar10, fetch_cifar100, fetch_mnist
from sklgap.datasets._file import FREE, RATIO, DataFile
from tests.datasets.writers import idx_bytes, write_cifar10, write_cifar100, write_mnist

HUGE = 2**32 - 1


@cache
def zeros(n_bytes):
    return gzip.compress(bytes(n_bytes), compresslevel=9, mtime=0)


def bomb(n_bytes, start=b""):
    """Return so many zero bytes after a start, compressed a thousand times."""
    return gzip.compress(start, mtime=0) + zeros(n_bytes)


def peak_of_refusal(call, match):
    """Return the memory in MB that a call needs until it is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_what_is_there(tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    content = bytes(range(200)) * 3
    path.write_bytes(gzip.compress(content) if suffix else content)
    with DataFile(path) as file:
        assert file.read(10) == content[:10]
        np.testing.assert_array_equal(file.array("<u2", 3), np.frombuffer(content[10:16], "<u2"))
        assert file.tell() == 16
        assert file.rest().tobytes() == content[16:]
        assert file.read(1) == b""
    with DataFile(path) as file:
        assert file.array(np.uint8, -1) is None
        assert file.array("<f8", 10**6) is None  # more than the file holds


def test_a_compressed_file_is_unpacked_to_its_limit(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(bomb(2 * FREE))
    with DataFile(path) as file:
        assert file.most == max(FREE, RATIO * path.stat().st_size) == FREE
        assert peak_of_refusal(file.rest, r"file.gz' must unpack to at most 16777216 bytes, but it unpacks") < 40
    with DataFile(path, most=100) as file:
        assert file.array(np.uint8, 101) is None
        assert peak_of_refusal(file.rest, "must unpack to at most 100 bytes") < 4


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize("n_declared", [12, 300_000, HUGE])
def test_a_bomb_in_place_of_mnist(tmp_path, name, n_declared):
    write_mnist(tmp_path, ".gz")
    images = "images" in name
    shape = (n_declared, 28, 28) if images else (n_declared,)
    header = idx_bytes(np.empty((0,) * len(shape), np.uint8))[:4] + np.array(shape, ">u4").tobytes()
    (tmp_path / name).write_bytes(bomb(200 * 2**20, header))

    def call():
        return fetch_mnist(data_home=tmp_path)

    assert peak_of_refusal(call, rf"{name}' must be .* bytes long \(its header says .*, found ") < 10


@pytest.mark.parametrize(
    "shape", [(HUGE, HUGE, HUGE), (12, 28, HUGE), (0, HUGE, HUGE), (HUGE, 28, 28)], ids=["all", "width", "zero", "rows"]
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_declared_sizes_ask_for_no_memory(tmp_path, shape, suffix):
    write_mnist(tmp_path, suffix)
    name = f"train-images-idx3-ubyte{suffix}"
    content = bytes([0, 0, 8, 3]) + np.array(shape, ">u4").tobytes()
    content += b"" if 0 in shape else bytes(12 * 784)
    (tmp_path / name).write_bytes(gzip.compress(content) if suffix else content)
    assert peak_of_refusal(lambda: fetch_mnist(data_home=tmp_path), f"{name}' must ") < 10


@pytest.mark.parametrize(
    ("write", "fetch", "name", "most"),
    [
        (write_cifar10, fetch_cifar10, "data_batch_3.bin.gz", 35),
        (write_cifar10, fetch_cifar10, "data_batch_1.bin.gz", 35),
        (write_cifar100, fetch_cifar100, "train.bin.gz", 180),
    ],
)
def test_a_bomb_in_place_of_cifar(tmp_path, write, fetch, name, most):
    write(tmp_path, ".gz")
    (tmp_path / name).write_bytes(bomb(200 * 2**20))
    assert peak_of_refusal(lambda: fetch(data_home=tmp_path), f"{name}' must unpack to at most .* gunzip first") < most


def test_as_many_compressed_images_as_are_published(tmp_path):
    labels = np.zeros(60_000, np.uint8)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    images = np.zeros((60_000, 28, 28), np.uint8)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images), 1))
    X, y = fetch_mnist(data_home=tmp_path, return_X_y=True)
    assert (X.shape, y.shape) == ((60_000, 1, 28, 28), (60_000,))
