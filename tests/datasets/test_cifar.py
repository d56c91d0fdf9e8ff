import numpy as np
import pytest
from sklearn.utils import Bunch

from sklgap.datasets import _base, fetch_cifar10, fetch_cifar100

from .writers import random_images, record_bytes, write_cifar10, write_cifar100, write_file


def expect(written, subset):
    images, labels = (
        [np.concatenate(arrays) for arrays in zip(written["train"], written["test"], strict=True)]
        if subset == "all"
        else written[subset]
    )
    return (images / 255).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("subset", ["train", "test", "all"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "."])
def test_cifar10_subsets_are_read_exactly(tmp_path, subset, suffix, folder):
    X_true, y_true = expect(write_cifar10(tmp_path / folder, suffix), subset)
    X, y = fetch_cifar10(subset=subset, data_home=tmp_path, return_X_y=True)
    np.testing.assert_array_equal(X, X_true)
    np.testing.assert_array_equal(y, y_true)
    assert X.dtype == np.float32
    assert y.dtype == np.int64
    assert X.flags.c_contiguous
    assert X.flags.writeable


@pytest.mark.parametrize("subset", ["train", "test", "all"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["cifar-100-binary", "."])
@pytest.mark.parametrize(("label", "column"), [("coarse", 0), ("fine", 1)])
def test_cifar100_subsets_are_read_exactly(tmp_path, subset, suffix, folder, label, column):
    X_true, y_true = expect(write_cifar100(tmp_path / folder, suffix), subset)
    X, y = fetch_cifar100(subset=subset, data_home=tmp_path, return_X_y=True, label=label)
    np.testing.assert_array_equal(X, X_true)
    np.testing.assert_array_equal(y, y_true[:, column])
    assert y.dtype == np.int64


def test_channels_come_first(tmp_path):
    write_file(tmp_path / "test_batch.bin", bytes([6]) + bytes(1024 * [255]) + bytes(1024 * [51]) + bytes(1024))
    X, y = fetch_cifar10(subset="test", data_home=tmp_path, return_X_y=True)
    for channel, value in zip(X[0], np.float32([1, 0.2, 0]), strict=True):
        assert (channel == value).all()
    assert y.tolist() == [6]


def test_cifar10_bunch(tmp_path):
    write_cifar10(tmp_path)
    bunch = fetch_cifar10(data_home=tmp_path)
    assert isinstance(bunch, Bunch)
    assert bunch.data.shape == (15, 3, 32, 32)
    assert bunch.target_names[[0, 3, 9]].tolist() == ["airplane", "cat", "truck"]
    assert "CIFAR-10:" in bunch.DESCR


def test_cifar100_names(tmp_path):
    write_cifar100(tmp_path)
    fine, coarse = (fetch_cifar100(data_home=tmp_path, label=label) for label in ("fine", "coarse"))
    for bunch, n in [(fine, 100), (coarse, 20)]:
        assert len(set(bunch.target_names)) == n
        assert sorted(bunch.target_names) == bunch.target_names.tolist()
        assert f"{n} (" in bunch.DESCR
    # Known positions in the publisher's lists.
    assert fine.target_names[[0, 19, 49, 99]].tolist() == ["apple", "cattle", "mountain", "worm"]
    assert coarse.target_names[[0, 11, 19]].tolist() == [
        "aquatic_mammals",
        "large_omnivores_and_herbivores",
        "vehicles_2",
    ]


@pytest.mark.parametrize(("fetch", "write"), [(fetch_cifar10, write_cifar10), (fetch_cifar100, write_cifar100)])
def test_flat(tmp_path, fetch, write):
    X_true, _ = expect(write(tmp_path), "test")
    X, _ = fetch(subset="test", data_home=tmp_path, return_X_y=True, flat=True)
    np.testing.assert_array_equal(X, X_true.reshape(len(X_true), 3072))
    assert X.flags.c_contiguous


@pytest.mark.parametrize(
    ("fetch", "write", "folder"),
    [(fetch_cifar10, write_cifar10, "cifar-10-batches-bin"), (fetch_cifar100, write_cifar100, "cifar-100-binary")],
)
def test_environment_variable(tmp_path, monkeypatch, fetch, write, folder):
    written = write(tmp_path / folder)
    monkeypatch.setenv("SKLGAP_DATA", str(tmp_path))
    assert len(fetch(download_if_missing=False).data) == len(written["train"][0])


@pytest.mark.parametrize("change", [slice(None, -1), slice(0, 0)])
def test_broken_batch_is_refused(tmp_path, change):
    write_cifar10(tmp_path)
    path = tmp_path / "data_batch_4.bin"
    content = path.read_bytes()[change]
    path.write_bytes(content)
    sentence = rf"data_batch_4\.bin' must hold one or more whole records of 3073 bytes, found {len(content)} bytes\.$"
    with pytest.raises(ValueError, match=sentence):
        fetch_cifar10(data_home=tmp_path)


def test_damaged_gzip_is_refused(tmp_path):
    write_cifar10(tmp_path, ".gz")
    path = tmp_path / "data_batch_2.bin.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"data_batch_2\.bin\.gz' must be an undamaged gzip file"):
        fetch_cifar10(data_home=tmp_path)


def test_cifar10_label_out_of_range(tmp_path):
    images = random_images(2, (3, 32, 32), seed=0)
    write_file(tmp_path / "test_batch.bin", record_bytes(images, np.uint8([9, 10])))
    with pytest.raises(ValueError, match=r"test_batch\.bin' must hold labels from 0 to 9, found 10 at index 1\.$"):
        fetch_cifar10(subset="test", data_home=tmp_path)


@pytest.mark.parametrize("label", ["fine", "coarse"])
@pytest.mark.parametrize(("labels", "n_classes"), [([20, 0], 20), ([0, 100], 100)])
def test_cifar100_checks_both_labels(tmp_path, label, labels, n_classes):
    images = random_images(1, (3, 32, 32), seed=0)
    write_file(tmp_path / "test.bin", record_bytes(images, np.uint8([labels])))
    sentence = rf"test\.bin' must hold labels from 0 to {n_classes - 1}, found {n_classes} at index 0\.$"
    with pytest.raises(ValueError, match=sentence):
        fetch_cifar100(subset="test", data_home=tmp_path, label=label)


def test_incomplete_folder_is_refused(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"^CIFAR-10 is incomplete: expected a file 'data_batch_3\.bin' or "):
        fetch_cifar10(data_home=tmp_path)
    assert len(fetch_cifar10(subset="test", data_home=tmp_path).data) == 4


@pytest.mark.parametrize(("fetch", "name"), [(fetch_cifar10, "test_batch"), (fetch_cifar100, "test")])
def test_missing_files_are_an_oserror_that_names_them(tmp_path, fetch, name):
    sentence = rf"needs '{name}\.bin' \(or \.gz\) in .* no such file was found, and download_if_missing is False\.$"
    with pytest.raises(OSError, match=sentence):
        fetch(subset="test", data_home=tmp_path, download_if_missing=False)


def test_cifar100_is_never_downloaded(tmp_path):
    sentence = (
        r"^CIFAR-100 needs 'train\.bin' .*cifar-100-binary' or .*; "
        r"put the files there; this data set is not loaded from OpenML\.$"
    )
    with pytest.raises(FileNotFoundError, match=sentence):
        fetch_cifar100(data_home=tmp_path)


@pytest.mark.parametrize("value", ["Fine", None])
def test_bad_label(value):
    with pytest.raises(ValueError, match=r"^label must be one of 'fine', 'coarse', got "):
        fetch_cifar100(label=value)


@pytest.mark.parametrize("fetch", [fetch_cifar10, fetch_cifar100])
def test_bad_subset(fetch):
    with pytest.raises(ValueError, match=r"^subset must be one of 'train', 'test', 'all', got 'valid'\.$"):
        fetch(subset="valid")


def test_cifar10_from_openml(tmp_path, monkeypatch):
    # Untouched pages of np.zeros cost no memory, so that the table can have its real size.
    data = np.zeros((60_000, 3072), dtype=np.uint8)
    data[49_999], data[50_000], data[59_999] = 3, 255, 51
    calls = []

    def fake(name, **kwargs):
        calls.append((name, kwargs["version"]))
        return Bunch(data=data, target=(np.arange(60_000) % 10).astype(str).astype(object))

    monkeypatch.setattr(_base, "fetch_openml", fake)
    X, y = fetch_cifar10(subset="test", data_home=tmp_path, return_X_y=True)
    assert X.shape == (10_000, 3, 32, 32)
    assert (X[0] == 1).all()
    assert (X[-1] == np.float32(0.2)).all()
    np.testing.assert_array_equal(y, np.arange(10_000) % 10)
    assert calls == [("CIFAR_10", 1)]
