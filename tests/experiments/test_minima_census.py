import re

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap import LBGapClassifier, check_objective, compare_regimes, minima_census, sharpness
from sklgap.experiments import MinimaCensus
from tests.cases import no_global_random_numbers
from tests.tiny import Mlp, blobs, small

X, Y = blobs(75)
DATA = (X[:50], Y[:50], X[50:], Y[50:])
GROUPS = [("10", "glorot_uniform"), ("10", "torch"), ("50", "glorot_uniform"), ("50", "torch")]


def count(estimator=None, data=DATA, **kwargs):
    defaults = {"regimes": (10, 50), "n_seeds": 2, "random_state": 0, "verbose": 0}
    return minima_census(small() if estimator is None else estimator, *data, **{**defaults, **kwargs})


def _figures(census):
    return [{k: v for k, v in record.items() if not k.endswith("_seconds")} for record in census.records]


@pytest.fixture(scope="module")
def census():
    return count()


def test_every_minimum_is_what_a_separate_training_gives(census):
    assert isinstance(census, MinimaCensus)
    assert census.groups == GROUPS
    assert [(r["regime"], r["init"], r["trial"]) for r in census.records] == [(*g, i) for g in GROUPS for i in (0, 1)]
    for record in census.records:
        seed = record["seed"]
        model = small(batch_size=int(record["regime"]), init=record["init"], random_state=seed).fit(*DATA[:2])
        for name, rows in (("train", DATA[:2]), ("test", DATA[2:])):
            assert (record[f"{name}_loss"], record[f"{name}_accuracy"]) == check_objective(model, *rows).evaluate()
        expected = sharpness(model, *DATA[:2], random_state=seed).value
        assert record["sharpness_0.001"] == pytest.approx(expected, rel=1e-9)
    assert len({r["seed"] for r in census.records}) == 2
    assert len({r["train_loss"] for r in census.records}) == 8


def test_one_init_is_a_comparison():
    report = compare_regimes(small(), *DATA, regimes=(10, 50), reference="10", n_trials=2, random_state=0, verbose=0)
    census = count(inits=["glorot_uniform"])
    for label in ("10", "50"):
        expected, found = report.values(label, "train_loss"), census.values((label, "glorot_uniform"), "train_loss")
        np.testing.assert_array_equal(found, expected)


def test_target_loss_ends_the_training_and_nothing_else_does():
    estimator = small(max_epochs=30, tol=0.9, n_iter_no_change=1)
    census = count(estimator, target_loss=0.6, inits=["torch"], regimes=(10,), n_seeds=1)
    (record,) = census.records
    assert record["converged"]
    alone = small(max_epochs=30, target_loss=0.6, batch_size=10, init="torch", random_state=record["seed"])
    assert record["n_epochs"] == alone.fit(*DATA[:2]).n_iter_ > 2
    missed = count(target_loss=1e-9, inits=["torch"], regimes=(10,), n_seeds=1)
    assert "10, torch missed the target loss in 1 of 1 fit." in missed.warnings()


def _constant(module):
    for p in module.parameters():
        nn.init.constant_(p, 0.1)


def test_inits_as_functions_and_by_name():
    census = count(inits=["torch", _constant], n_seeds=1)
    assert census.groups[1] == ("10", "_constant")
    named = count(inits={"t": "torch", "0.1": _constant}, n_seeds=1)
    assert named.groups[:2] == [("10", "t"), ("10", "0.1")]
    np.testing.assert_array_equal([r["train_loss"] for r in census.records], [r["train_loss"] for r in named.records])


def test_a_pipeline():
    census = count(make_pipeline(StandardScaler(), small()), n_seeds=1)
    scaler = StandardScaler().fit(DATA[0])
    data = (scaler.transform(DATA[0]), DATA[1], scaler.transform(DATA[2]), DATA[3])
    assert _figures(census) == _figures(count(data=data, n_seeds=1))


def test_repeatable_from_random_state(census):
    with torch.random.fork_rng(devices=[]), no_global_random_numbers():
        assert _figures(count()) == _figures(census)
    assert _figures(count(random_state=1)) != _figures(census)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(census):
    assert _figures(count(n_jobs=2)) == _figures(census)


BAD = {
    "regimes": ({"regimes": "SB"}, "regimes must be a sequence of batch regimes or a dict"),
    "inits": ({"inits": "torch"}, "inits must be a sequence of initialisations or a dict label -> init; got 'torch'."),
    "no inits": ({"inits": ()}, "inits must be a sequence"),
    "unknown init": ({"inits": ["zeros"]}, "init must be 'glorot_uniform', 'torch' or a callable"),
    "twice": ({"inits": ["torch", "torch"]}, "inits must have different labels"),
    "n_seeds": ({"n_seeds": 0}, "n_seeds must be an integer of at least 1; got 0."),
    "target_loss": ({"target_loss": 0}, "target_loss must be a number above 0; got 0."),
    "epsilon": ({"epsilon": [1e-3]}, "epsilon must be a number above 0; got [0.001]."),
    "epsilon 0": ({"epsilon": 0}, "epsilon must be a number above 0"),
    "solver": ({"solver": "best"}, "solver must be one of "),
    "init in a regime": ({"regimes": {"a": {"init": "torch"}}}, "regimes must not set init"),
    "instance": ({"estimator": small(net=Mlp())}, "net must be a name, a class or a function"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values(case, monkeypatch):
    monkeypatch.setattr(LBGapClassifier, "fit", lambda *_: pytest.fail("trained before the error was found"))
    kwargs, sentence = BAD[case]
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        count(**kwargs)
