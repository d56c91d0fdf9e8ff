import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from sklgap import LBGapClassifier, TrainingRecorder, generalization_gap_score, sharpness_score
from sklgap.inspection import recorded
from tests.tiny import blobs


class Samples(Dataset):
    """One sample at a time, with the labels of the user."""

    def __init__(self, X, y):
        self.X, self.y = torch.as_tensor(np.asarray(X, dtype=np.float32)), y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], int(self.y[i])


def _data():
    X, y = blobs()
    return np.asarray(X), np.asarray(y) + 5  # labels that are no class numbers


def _streams(X, y):
    tensors = TensorDataset(torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(y))
    return {
        "dataset": Samples(X, y),
        "tensors": tensors,
        "loader": DataLoader(Samples(X, y), batch_size=17),
        "loader of tensors": DataLoader(tensors, batch_size=17),
    }


def _model(**kwargs):
    net = nn.Sequential(nn.Linear(_data()[0].shape[1], 5), nn.Tanh(), nn.Linear(5, len(set(_data()[1]))))
    return LBGapClassifier(net, max_epochs=3, tol=None, batch_size=20, random_state=0, **kwargs)


@pytest.mark.parametrize("kind", _streams(*_data()))
def test_a_recorder_reads_streams(kind):
    X, y = _data()
    torch.manual_seed(0)
    recorder = TrainingRecorder({"array": (X, y), "stream": _streams(X, y)[kind]})
    curves = recorded(_model(callbacks=[("recorder", recorder)]).fit(X, y))
    np.testing.assert_allclose(curves["stream_loss"], curves["array_loss"], rtol=1e-5)
    np.testing.assert_array_equal(curves["stream_accuracy"], curves["array_accuracy"])


@pytest.mark.parametrize("kind", _streams(*_data()))
def test_scorers_read_streams(kind):
    X, y = _data()
    model = _model().fit(X, y)
    stream = _streams(X, y)[kind]
    assert sharpness_score(model, stream) == pytest.approx(sharpness_score(model, X, y), rel=1e-3)
    assert generalization_gap_score(model, stream) == pytest.approx(generalization_gap_score(model, X, y), abs=1e-12)


def test_a_label_that_fit_has_not_seen_is_refused():
    X, y = _data()
    model = _model().fit(X, y)
    with pytest.raises(ValueError, match="y must have the labels seen in fit"):
        sharpness_score(model, Samples(X, y + 1))
