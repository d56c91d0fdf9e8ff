"""Writers of the publishers' formats, kept apart from the readers that they test."""

import gzip
import struct
from pathlib import Path

import numpy as np

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
CIFAR10_FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
CIFAR100_FILES = {"train": ["train.bin"], "test": ["test.bin"]}


def write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def record_bytes(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Labels: (n,) or (n, n_label_bytes)."""
    return b"".join(
        bytes(np.atleast_1d(label).tolist()) + image.tobytes() for image, label in zip(images, labels, strict=True)
    )


def random_images(n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def write_mnist(folder: Path, suffix: str = "") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write 12 training and 5 test images; return images and labels as they should be read."""
    written = {}
    for seed, (subset, n) in enumerate([("train", 12), ("test", 5)]):
        images, labels = random_images(n, (28, 28), seed), (np.arange(n, dtype=np.uint8) + seed) % 10
        for name, array in zip(MNIST_FILES[subset], (images, labels), strict=True):
            write_file(folder / (name + suffix), idx_bytes(array))
        written[subset] = images[:, None], labels
    return written


def write_cifar10(folder: Path, suffix: str = "") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write five training batches of 1 to 5 records and 4 test records; return them as they should be read."""
    written = {}
    for subset, sizes in [("train", [1, 2, 3, 4, 5]), ("test", [4])]:
        n = sum(sizes)
        images, labels = random_images(n, (3, 32, 32), n), np.arange(n, dtype=np.uint8) % 10
        ends = np.cumsum(sizes)
        for name, start, end in zip(CIFAR10_FILES[subset], ends - sizes, ends, strict=True):
            write_file(folder / (name + suffix), record_bytes(images[start:end], labels[start:end]))
        written[subset] = images, labels
    return written


def write_cifar100(folder: Path, suffix: str = "") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write 7 training and 3 test records; labels are columns (coarse, fine)."""
    written = {}
    for subset, n in [("train", 7), ("test", 3)]:
        images = random_images(n, (3, 32, 32), n)
        labels = np.stack([np.arange(n) + 13, np.arange(n) + 93], axis=1).astype(np.uint8)
        write_file(folder / (CIFAR100_FILES[subset][0] + suffix), record_bytes(images, labels))
        written[subset] = images, labels
    return written
