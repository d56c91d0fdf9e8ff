import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

from sklgap import LBGapClassifier
from sklgap.datasets import load_timit
from tests.datasets.test_kaldi import double_matrix_bytes, integer_bytes, matrix_bytes, write_ark

LENGTHS = {"fa": 5, "fb": 1, "mc": 12}


@pytest.fixture
def corpus(tmp_path):
    """Features of three utterances in an scp file, their alignments in two gzipped archives, and the arrays."""
    rng = np.random.default_rng(0)
    frames = {name: rng.normal(size=(n, 40)).astype(np.float32) for name, n in LENGTHS.items()}
    labels = {name: rng.integers(9, size=n) for name, n in LENGTHS.items()}
    offsets = write_ark(tmp_path / "raw.ark", {name: matrix_bytes(matrix) for name, matrix in frames.items()})
    (tmp_path / "feats.scp").write_text("".join(f"{name} raw.ark:{at}\n" for name, at in offsets.items()))
    write_ark(tmp_path / "pdf.1.gz", {name: integer_bytes(labels[name]) for name in ("mc",)})
    write_ark(tmp_path / "pdf.2.gz", {name: integer_bytes(labels[name]) for name in ("fb", "fa")})
    return tmp_path / "feats.scp", [tmp_path / "pdf.1.gz", tmp_path / "pdf.2.gz"], frames, labels


def spliced(matrix, left, right):
    """Kaldi's splice-feats, frame by frame."""
    rows = []
    for t in range(len(matrix)):
        row = []
        for shift in range(-left, right + 1):
            row += list(matrix[min(max(t + shift, 0), len(matrix) - 1)])
        rows.append(row)
    return np.array(rows, dtype=np.float32)


def test_the_bunch(corpus):
    features, alignments, frames, labels = corpus
    data = load_timit(features, alignments)
    assert (data.data.shape, data.data.dtype, data.target.dtype) == ((18, 360), np.float32, np.int64)
    assert data.utterances.tolist() == ["fa", "fb", "mc"]
    for number, name in enumerate(data.utterances):
        np.testing.assert_array_equal(data.data[data.groups == number], spliced(frames[name], 4, 4))
        np.testing.assert_array_equal(data.target[data.groups == number], labels[name])
    assert "TIMIT" in data.DESCR
    train, test = next(GroupKFold(3).split(data.data, data.target, data.groups))
    assert not set(data.groups[train]) & set(data.groups[test])


@pytest.mark.parametrize(("context", "sides"), [(0, (0, 0)), (2, (2, 2)), ((3, 0), (3, 0)), ((0, 20), (0, 20))])
def test_context(corpus, context, sides):
    features, alignments, frames, _ = corpus
    X, _ = load_timit(features, alignments, context=context, return_X_y=True)
    np.testing.assert_array_equal(X, np.concatenate([spliced(matrix, *sides) for matrix in frames.values()]))


def test_f2_learns_from_it(corpus):
    features, alignments, _, _ = corpus
    X, y = load_timit(str(features), alignments, return_X_y=True)
    model = LBGapClassifier(
        "F2", module__width=32, lr=0.01, batch_size=-1, max_epochs=60, tol=None, random_state=0
    ).fit(X, y)
    assert model.train_score_ > 0.9


def test_utterances_without_an_alignment(corpus):
    features, alignments, _, _ = corpus
    with pytest.raises(
        ValueError, match=r"pdf.2.gz' must have an alignment for .*feats.scp'; utterance 'mc' has no alignment"
    ):
        load_timit(features, alignments[1])
    data = load_timit(features, alignments[1], missing="skip")
    assert data.utterances.tolist() == ["fa", "fb"]
    assert data.data.shape == (6, 360)
    write_ark(alignments[0].parent / "other.ark", {"other": integer_bytes([1])})
    with pytest.raises(
        ValueError, match=r"feats.scp' must have at least one utterance that .*other.ark' aligns; found 0"
    ):
        load_timit(features, alignments[0].parent / "other.ark", missing="skip")


def test_alignments_of_another_length(corpus):
    features, alignments, _, _ = corpus
    write_ark(alignments[0], {"mc": integer_bytes(range(11))})
    with pytest.raises(ValueError, match=r"each of the 12 frames that utterance 'mc' has in .*feats.scp', found 11\.$"):
        load_timit(features, alignments)


def test_an_utterance_aligned_twice(corpus):
    features, alignments, _, _ = corpus
    write_ark(alignments[0], {"mc": integer_bytes(range(12)), "fb": integer_bytes([1])})
    with pytest.raises(ValueError, match=r"pdf.2.gz' aligns utterance 'fb', but another file aligns it, too"):
        load_timit(features, alignments)


def test_frames_of_unequal_width(tmp_path):
    values = {"a": matrix_bytes(np.zeros((2, 3))), "b": matrix_bytes(np.zeros((2, 4)))}
    write_ark(tmp_path / "feats.ark", values)
    write_ark(tmp_path / "pdf.ark", {"a": integer_bytes([1, 2]), "b": integer_bytes([1, 2])})
    with pytest.raises(ValueError, match=r"must have 3 features in .* as in utterance 'a'; utterance 'b' has 4\.$"):
        load_timit(tmp_path / "feats.ark", tmp_path / "pdf.ark")


def test_values_beyond_float32_are_refused(corpus):
    features, alignments, _, _ = corpus
    for name, value in (("large", 1e300), ("infinite", np.inf), ("none", np.nan)):
        path = features.parent / f"{name}.ark"
        matrix = np.full((5, 40), value)
        write_ark(path, {"fa": double_matrix_bytes(matrix)})
        with pytest.raises(ValueError, match=rf"{name}.ark' must hold features that are finite in float32; those of"):
            load_timit(path, alignments[1])


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"context": -1}, ValueError, r"^context must be an integer of at least 0, or two such integers; got -1\.$"),
        ({"context": 1.5}, ValueError, "^context must be"),
        ({"context": (1, 2, 3)}, ValueError, "^context must be"),
        ({"context": True}, ValueError, "^context must be"),
        ({"context": 10**12}, ValueError, r"^context must be at most 1000 frames on a side; got 1000000000000\.$"),
        ({"context": (0, 1001)}, ValueError, "^context must be at most 1000 frames"),
        ({"missing": "ignore"}, ValueError, "^missing must be one of 'error', 'skip', got 'ignore'"),
        ({"return_X_y": 1}, TypeError, "^return_X_y must be True or False"),
        ({"features": 3}, TypeError, r"^features must be a path; got 3\.$"),
        ({"alignments": []}, TypeError, "^alignments must be a path or a list of paths"),
        ({"alignments": [1]}, TypeError, "^alignments must be a path or a list of paths"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        load_timit(**{"features": "feats.scp", "alignments": "pdf.ark", **parameters})
