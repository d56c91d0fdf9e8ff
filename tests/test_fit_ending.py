"""What a fit does when its training has ended: passes over the data, counted, and what they find."""

import numpy as np
import pytest
import sklearn.utils.validation
import torch
from torch import nn

from sklgap import LBGapClassifier
from sklgap.estimator import _evaluation
from sklgap.estimator._evaluation import accuracy, recompute_batch_norm
from sklgap.objective import Objective, check_objective
from tests.tiny import Mlp, TinyC1, TinyF1, blobs, images, small

X, Y = blobs(90)
X = (X + np.random.default_rng(1).normal(0, 3, X.shape)).astype(np.float32)  # so that not all are right


class Counting(TinyF1):
    """Counts the rows that it sees in evaluation mode, in batches of more than the few that it is tried on."""

    n_rows = 0

    def forward(self, X):
        if not self.training and len(X) > 40:
            Counting.n_rows += len(X)
        return super().forward(X)


class CountingMlp(Mlp):
    n_rows = 0

    def forward(self, X):
        if not self.training and len(X) > 40:
            CountingMlp.n_rows += len(X)
        return super().forward(X)


class Twice(nn.Module):
    """A net that uses one batch norm twice."""

    def __init__(self, n_in=4, n_out=3):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(n_in, 8), nn.BatchNorm1d(8), nn.Linear(8, n_out)

    def forward(self, X):
        return self.last(self.norm(torch.relu(self.norm(self.first(X)))))


@pytest.mark.parametrize(
    ("net", "params", "passes"),
    [
        (Counting, {}, 1),  # one for the statistics and the accuracy
        (Counting, {"recompute_batch_norm": False}, 1),
        (CountingMlp, {}, 1),  # no batch norm
        (Counting, {"chunk": 50}, 2),  # two chunks, each normalised with its own statistics
    ],
)
def test_passes_over_the_data(net, params, passes, monkeypatch):
    params = dict(params)
    monkeypatch.setattr(_evaluation, "CHUNK_SIZE", params.pop("chunk", 5000))
    net.n_rows = 0
    small(net=net, **params).fit(X, Y)
    assert net.n_rows == passes * len(X)


@pytest.mark.parametrize("params", [{"net": TinyF1}, {"net": TinyF1, "ghost_batch_size": 4}, {"net": Mlp}, {}], ids=str)
@pytest.mark.parametrize("chunk", [5000, 50])
def test_train_score_is_the_accuracy_of_the_final_weights(params, chunk, monkeypatch):
    monkeypatch.setattr(_evaluation, "CHUNK_SIZE", chunk)
    model = small(**params).fit(X, Y)
    assert 0.4 < model.train_score_ < 1
    assert model.train_score_ == accuracy(model.module_, X, Y) == model.score(X, Y)


def test_train_score_of_images():
    rows, y = images(60)
    model = small(net=TinyC1).fit(rows, y)
    assert model.train_score_ == model.score(rows, y)


@pytest.mark.parametrize(("net", "shown"), [(TinyF1(4, 3), True), (Twice(), False), (Mlp(), False)])
def test_one_pass_shows_the_accuracy_only_where_each_layer_has_its_final_statistics(net, shown):
    found = recompute_batch_norm(net, X, Y)
    assert (found is not None) == shown
    assert found in (None, accuracy(net, X, Y))


def test_several_chunks_show_no_accuracy(monkeypatch):
    monkeypatch.setattr(_evaluation, "CHUNK_SIZE", 50)
    assert recompute_batch_norm(TinyF1(4, 3), X, Y) is None


@pytest.fixture
def n_checks(monkeypatch):
    """Count the times that all numbers of X are looked at."""
    found = []
    check = sklearn.utils.validation._assert_all_finite

    def counted(rows, *args, **kwargs):
        if getattr(rows, "shape", ()) == X.shape:
            found.append(1)
        return check(rows, *args, **kwargs)

    monkeypatch.setattr(sklearn.utils.validation, "_assert_all_finite", counted)
    return found


@pytest.mark.parametrize("use", ["fit", "predict", "score", "measure", "evaluate"])
def test_x_is_checked_once(use, n_checks):
    model = small(net=Mlp).fit(X, Y)
    assert len(n_checks) == 1
    del n_checks[:]
    {
        "fit": lambda: model.fit(X, Y),
        "predict": lambda: model.predict(X),
        "score": lambda: model.score(X, Y),
        "measure": lambda: check_objective(model, X, Y),
        "evaluate": lambda: check_objective(model.net_, X, Y),
    }[use]()
    assert len(n_checks) == 1


def test_an_objective_of_an_estimator_still_checks_x():
    model = small(net=Mlp).fit(X, Y)
    wrong = X.copy()
    wrong[2, 1] = np.nan
    for measured in (model, model.net_):
        with pytest.raises(ValueError, match="NaN"):
            check_objective(measured, wrong, Y)
    with pytest.raises(ValueError, match="features"):
        check_objective(model, X[:, :3], Y)


class Writing(Mlp):
    """A net whose first step changes its input."""

    def forward(self, X):
        return super().forward(X.clamp_(min=0))


@pytest.mark.parametrize(
    "net",
    [Writing, nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), nn.Sequential(nn.ELU(inplace=True), Mlp())],
    ids=["own", "relu", "elu"],
)
def test_a_net_that_writes_into_x_is_refused(net):
    before = X.copy()
    with pytest.raises(ValueError, match="write into its inputs"):
        LBGapClassifier(net, max_epochs=1).fit(X, Y)
    np.testing.assert_array_equal(X, before)


def test_a_net_may_write_into_what_it_has_computed():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))
    before = X.copy()
    model = small(net=net).fit(X, Y)
    assert isinstance(check_objective(model, X, Y), Objective)
    np.testing.assert_array_equal(X, before)
