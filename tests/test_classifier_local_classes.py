"""Nets, criteria and optimisers whose classes are defined in a script or in a function can be copied."""

import copy
import pickle
import subprocess
import sys
import warnings
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from torch import nn

from sklgap import LBGapClassifier, compare_regimes

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def local_classes():
    """Return classes that pickle cannot find by their names."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
            self.scale = lambda X: 2 * X

        def forward(self, X):
            return self.layers(self.scale(X))

    class Loss(nn.CrossEntropyLoss):
        pass

    class Optimizer(torch.optim.Adam):
        pass

    return Net, Loss, Optimizer


def model(**params):
    net, loss, optimizer = local_classes()
    given = {"net": net, "criterion": loss, "optimizer": optimizer, **params}
    return LBGapClassifier(max_epochs=2, tol=None, batch_regime=20, random_state=0, **given)


def test_they_cannot_be_pickled():
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(model().fit(X, Y))


@pytest.mark.parametrize("as_instance", [False, True])
def test_a_copy_predicts_the_same_and_trains_alone(as_instance):
    fitted = model(**({"net": local_classes()[0]()} if as_instance else {})).fit(X, Y)
    expected = fitted.predict_proba(X)
    copied = copy.deepcopy(fitted)
    np.testing.assert_array_equal(copied.predict_proba(X), expected)
    assert type(copied.module_) is type(fitted.module_)
    held = {id(p) for group in copied.net_.optimizer_.param_groups for p in group["params"]}
    assert held == {id(p) for p in copied.module_.parameters()}
    copied.net_.partial_fit(X, Y)
    assert not np.array_equal(copied.predict_proba(X), expected)
    np.testing.assert_array_equal(fitted.predict_proba(X), expected)


def test_a_second_fit_with_warm_start():
    fitted = model(warm_start=True).fit(X, Y).fit(X, Y)
    assert len(fitted.history_) == 4


def test_other_processes_give_the_same_numbers():
    alone, together = (
        compare_regimes(
            model(), X, Y, X, Y, regimes=[16, 30], reference=16, epsilon=[1e-3], n_trials=2, random_state=0, verbose=0,
            n_jobs=n_jobs,
        )
        for n_jobs in (1, 2)
    )  # fmt: skip
    for name in ("test_accuracy", "train_loss", "sharpness_0.001"):
        for label in alone.labels:
            np.testing.assert_array_equal(alone.by_trial(label, name), together.by_trial(label, name))


class Storing(nn.Module):
    """A net with weight norm that stores its last outputs, with their graph."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated
            self.first = nn.utils.weight_norm(nn.Linear(4, 8))
        self.last = nn.Linear(8, 2)

    def forward(self, X):
        self.outputs = self.last(self.first(X).relu())
        return self.outputs


def test_a_copy_of_a_net_that_holds_a_graph():
    fitted = LBGapClassifier(Storing, max_epochs=2, tol=None, batch_regime=20, random_state=0).fit(X, Y)
    copied = copy.deepcopy(fitted)
    np.testing.assert_array_equal(copied.predict_proba(X), fitted.predict_proba(X))


def test_a_model_that_another_process_gets_shares_no_memory():
    """The pickler of multiprocessing moves tensors into shared memory, unless they are bytes."""
    fitted = LBGapClassifier("F1", module__width=8, max_epochs=2, tol=None, batch_regime=20, random_state=0).fit(X, Y)
    received = pickle.loads(ForkingPickler.dumps(fitted))
    before = fitted.predict_proba(X)
    with torch.no_grad():
        for p in received.module_.parameters():
            p.zero_()
    np.testing.assert_array_equal(fitted.predict_proba(X), before)
    assert not any(p.is_shared() for p in fitted.module_.parameters())


SCRIPT = """
import numpy as np, torch
from joblib import Parallel, delayed
from torch import nn
from sklgap import LBGapClassifier

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
    def forward(self, X):
        return self.layer(X)

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
y = (X[:, 0] > 0).astype(int)

if __name__ == "__main__":
    model = LBGapClassifier(Net, max_epochs=2, tol=None, random_state=0).fit(X, y)
    (found,) = Parallel(n_jobs=2)([delayed(model.predict_proba)(X)])
    (again,) = Parallel(n_jobs=2)([delayed(model.fit)(X, y)])
    assert np.array_equal(found, model.predict_proba(X))
    assert type(again.module_) is Net
"""


def test_a_script_sends_its_nets_to_other_processes_and_back(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    subprocess.run([sys.executable, path], check=True)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.LBFGS])
def test_a_pickle_continues_as_the_original(optimizer):
    """With a class that pickle finds, a pickle holds the state of the optimiser too."""
    fitted = LBGapClassifier(
        "F1", module__width=8, optimizer=optimizer, max_epochs=2, tol=None, batch_regime=20, random_state=0
    ).fit(X, Y)
    again = pickle.loads(pickle.dumps(fitted))
    for one in (fitted, again):
        one.net_.partial_fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
