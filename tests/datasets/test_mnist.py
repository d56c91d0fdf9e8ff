from urllib.error import URLError

import numpy as np
import pytest
from sklearn.utils import Bunch

from sklgap.datasets import _base, fetch_mnist

from .writers import MNIST_FILES, idx_bytes, random_images, write_file, write_mnist


def expect(written, subset):
    images, labels = (
        [np.concatenate(arrays) for arrays in zip(written["train"], written["test"], strict=True)]
        if subset == "all"
        else written[subset]
    )
    return (images / 255).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("subset", ["train", "test", "all"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["mnist", "."])
def test_subsets_are_read_exactly(tmp_path, subset, suffix, folder):
    X_true, y_true = expect(write_mnist(tmp_path / folder, suffix), subset)
    X, y = fetch_mnist(subset=subset, data_home=tmp_path, return_X_y=True)
    np.testing.assert_array_equal(X, X_true)
    np.testing.assert_array_equal(y, y_true)
    assert X.dtype == np.float32
    assert y.dtype == np.int64
    assert X.flags.c_contiguous
    assert X.flags.writeable
    assert y.flags.writeable


def test_bunch(tmp_path):
    X_true, y_true = expect(write_mnist(tmp_path), "train")
    bunch = fetch_mnist(data_home=str(tmp_path))
    assert isinstance(bunch, Bunch)
    np.testing.assert_array_equal(bunch.data, X_true)
    np.testing.assert_array_equal(bunch.target, y_true)
    assert bunch.target_names.tolist() == list("0123456789")
    assert "MNIST" in bunch.DESCR


def test_flat(tmp_path):
    X_true, _ = expect(write_mnist(tmp_path), "test")
    X, _ = fetch_mnist(subset="test", data_home=tmp_path, return_X_y=True, flat=True)
    np.testing.assert_array_equal(X, X_true.reshape(5, 784))
    assert X.flags.c_contiguous


def test_environment_variable(tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist")
    monkeypatch.setenv("SKLGAP_DATA", str(tmp_path))
    assert fetch_mnist(download_if_missing=False).data.shape == (12, 1, 28, 28)


def test_one_subset_is_enough(tmp_path):
    write_mnist(tmp_path)
    for name in MNIST_FILES["train"]:
        (tmp_path / name).unlink()
    assert len(fetch_mnist(subset="test", data_home=tmp_path).data) == 5


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("subset", ["train", "all"])
def test_incomplete_folder_is_refused(tmp_path, download, subset):
    write_mnist(tmp_path, ".gz")
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"^MNIST is incomplete: expected a file 'train-labels-idx1-ubyte' or "):
        fetch_mnist(subset=subset, data_home=tmp_path, download_if_missing=download)


def test_missing_files_are_an_oserror_that_names_them(tmp_path):
    home = tmp_path / "home"
    sentence = (
        r"^MNIST needs 't10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte' \(or \.gz\) in '.*mnist' or '.*home', "
        r"but no such file was found, and download_if_missing is False\.$"
    )
    with pytest.raises(OSError, match=sentence):
        fetch_mnist(subset="test", data_home=home, download_if_missing=False)
    assert not home.exists()


def test_counts_must_agree(tmp_path):
    write_mnist(tmp_path)
    write_file(tmp_path / "train-labels-idx1-ubyte", idx_bytes(np.zeros(11, dtype=np.uint8)))
    sentence = r"labels-idx1-ubyte' must hold a label for each of the 12 images of '.*images-idx3-ubyte', found 11\.$"
    with pytest.raises(ValueError, match=sentence):
        fetch_mnist(data_home=tmp_path)


@pytest.mark.parametrize("shape", [(12, 28, 27), (12, 14, 56), (0, 28, 28)])
def test_images_must_be_28_by_28(tmp_path, shape):
    write_mnist(tmp_path)
    write_file(tmp_path / "train-images-idx3-ubyte", idx_bytes(random_images(shape[0], shape[1:], seed=0)))
    with pytest.raises(
        ValueError, match=r"images-idx3-ubyte' must hold one or more images of \(28, 28\) pixels, found"
    ):
        fetch_mnist(data_home=tmp_path)


def test_label_out_of_range(tmp_path):
    write_mnist(tmp_path)
    labels = np.arange(12, dtype=np.uint8)
    write_file(tmp_path / "train-labels-idx1-ubyte", idx_bytes(labels))
    sentence = r"train-labels-idx1-ubyte' must hold labels from 0 to 9, found 10 at index 10\.$"
    with pytest.raises(ValueError, match=sentence):
        fetch_mnist(data_home=tmp_path)


def test_damage_in_the_second_subset_stops_all(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    assert len(fetch_mnist(subset="train", data_home=tmp_path).data) == 12
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte"):
        fetch_mnist(subset="all", data_home=tmp_path)


@pytest.mark.parametrize("value", ["valid", None, 1, ["train"]])
def test_bad_subset(value):
    with pytest.raises(ValueError, match=r"^subset must be one of 'train', 'test', 'all', got "):
        fetch_mnist(subset=value)


@pytest.mark.parametrize("name", ["download_if_missing", "return_X_y", "flat"])
def test_bad_flag(name):
    with pytest.raises(TypeError, match=rf"^{name} must be True or False, got 'no'\.$"):
        fetch_mnist(**{name: "no"})


@pytest.fixture
def openml(monkeypatch):
    """A stand-in for OpenML's table: strings as labels, the row number in the first two pixels."""
    rows = np.arange(70_000)
    data = np.zeros((70_000, 784), dtype=np.int16)
    data[:, 0], data[:, 1], data[:, 2] = rows // 256, rows % 256, 255
    answer = Bunch(data=data, target=(rows % 10).astype(str).astype(object), calls=[])

    def fake(name, **kwargs):
        answer.calls.append((name, kwargs))
        return answer

    monkeypatch.setattr(_base, "fetch_openml", fake)
    return answer


@pytest.mark.parametrize(("subset", "first", "n"), [("train", 0, 60_000), ("test", 60_000, 10_000), ("all", 0, 70_000)])
def test_openml_rows_are_split_as_published(tmp_path, openml, subset, first, n):
    X, y = fetch_mnist(subset=subset, data_home=tmp_path, return_X_y=True, flat=subset == "train")
    assert X.shape == ((n, 784) if subset == "train" else (n, 1, 28, 28))
    assert X.dtype == np.float32
    assert y.dtype == np.int64
    pixels = X.reshape(n, 784) * 255
    np.testing.assert_array_equal(np.round(pixels[:, 0] * 256 + pixels[:, 1]), np.arange(first, first + n))
    assert (X.reshape(n, 784)[:, 2] == 1).all()
    np.testing.assert_array_equal(y, np.arange(first, first + n) % 10)
    [(name, kwargs)] = openml.calls
    assert name == "mnist_784"
    assert kwargs["version"] == 1
    assert kwargs["as_frame"] is False
    assert kwargs["data_home"] == tmp_path


def test_openml_is_not_asked_where_files_are(tmp_path, openml):
    write_mnist(tmp_path)
    fetch_mnist(data_home=tmp_path)
    with pytest.raises(FileNotFoundError):
        fetch_mnist(data_home=tmp_path / "nowhere", download_if_missing=False)
    assert openml.calls == []


def test_openml_without_pandas(tmp_path, openml, monkeypatch):
    monkeypatch.setattr(_base.importlib.util, "find_spec", lambda name: None)
    fetch_mnist(subset="test", data_home=tmp_path)
    assert openml.calls[0][1]["parser"] == "liac-arff"


def test_openml_table_of_wrong_shape(tmp_path, openml):
    openml.data = openml.data[:-1]
    sentence = (
        r"^'OpenML mnist_784, version 1' must be a table of shape \(70000, 784\) with a label for each sample, "
        r"found \(69999, 784\) and 70000 labels\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        fetch_mnist(data_home=tmp_path)


@pytest.mark.parametrize(("label", "sentence"), [("10", "labels from 0 to 9, found 10 "), ("six", "integer labels, ")])
def test_openml_wrong_labels(tmp_path, openml, label, sentence):
    openml.target[65_000] = label
    with pytest.raises(ValueError, match=rf"^'OpenML mnist_784, version 1' must hold {sentence}"):
        fetch_mnist(subset="test", data_home=tmp_path)


def test_failed_download_says_what_to_do(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(_base, "fetch_openml", offline)
    with pytest.raises(OSError, match=r"^MNIST needs 'train-images.*, and the download from OpenML failed: .*no route"):
        fetch_mnist(data_home=tmp_path)
