import pytest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier

from sklgap import TrainingRecorder
from sklgap.inspection import recorded
from tests.tiny import Mlp, blobs, small

X, Y = blobs()


def _count(net):
    return len(net.history)


def test_recorded_finds_the_recorder():
    two = small(callbacks=[("a", TrainingRecorder()), ("b", TrainingRecorder(every=2))]).fit(X, Y)
    assert recorded(two, "a")["epoch"].tolist() == [1, 2]
    assert recorded(two, "b")["epoch"].tolist() == [2]
    with pytest.raises(ValueError, match=r"name must be .* \(recorders of this fit: 'a', 'b'\); got None\."):
        recorded(two)
    with pytest.raises(ValueError, match=r"recorders of this fit: 'a', 'b'\); got 'c'\."):
        recorded(two, "c")
    with pytest.raises(ValueError, match=r"recorders of this fit: no recorder\); got None\."):
        recorded(small().fit(X, Y))
    for unfitted in (small(), NeuralNetClassifier(Mlp), GridSearchCV(small(), {})):
        with pytest.raises(NotFittedError):
            recorded(unfitted)


def test_recorded_returns_copies_of_numbers():
    model = small(callbacks=[("recorder", TrainingRecorder(None, {"count": _count}))]).fit(X, Y)
    columns = recorded(model)
    assert columns["n_updates"].dtype.kind == "i"
    assert all(values.dtype == float for name, values in columns.items() if name != "n_updates")
    columns["count"][:] = 7
    assert recorded(model)["count"].tolist() == [1, 2]
