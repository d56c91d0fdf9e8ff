import copy
import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap import LBGapClassifier, SwitchBatch, check_objective, compare_regimes, sharpness, warm_start_curve
from sklgap.experiments import WarmStartCurve
from tests.cases import no_global_random_numbers
from tests.ids import plain
from tests.tiny import Mlp, blobs, interrupting_at, small

X, Y = blobs(75)
DATA = (X[:50], Y[:50], X[50:], Y[50:])
SMALL_NAMES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def warm(estimator=None, data=DATA, **kwargs):
    defaults = {"small": 10, "large": 50, "max_small_epochs": 4, "every": 2, "n_trials": 2}
    defaults |= {"random_state": 0, "verbose": 0}
    return warm_start_curve(small() if estimator is None else estimator, *data, **{**defaults, **kwargs})


def _figures(curve):
    """The records without the seconds."""
    return [{k: v for k, v in record.items() if not k.endswith("_seconds")} for record in curve.records]


@pytest.fixture(scope="module")
def curve():
    return warm()


def _load(module, state):
    module.load_state_dict(copy.deepcopy(state))


# -- what is trained ---------------------------------------------------------------------------------------------------


def test_a_record_for_every_trial_and_kept_epoch(curve):
    assert isinstance(curve, WarmStartCurve)
    assert [(r["trial"], r["small_epochs"]) for r in curve.records] == [(t, e) for t in (0, 1) for e in (0, 2, 4)]
    assert [r["batch_size"] for r in curve.records] == [50] * 6
    assert [r["n_updates"] for r in curve.records] == [2] * 6
    assert [r["small_n_updates"] for r in curve.records] == [0, 10, 20] * 2
    assert curve.small_epochs.tolist() == [0, 2, 4]


def test_every_point_is_what_separate_trainings_give(curve):
    """The slow reference: a small-batch training of its own for every point, then the large batch from its weights."""
    for record in curve.records:
        seed, epochs = record["seed"], record["small_epochs"]
        large = small(batch_size=50, random_state=seed)
        if epochs:
            first = small(batch_size=10, max_epochs=epochs, random_state=seed).fit(*DATA[:2])
            state = first.module_.state_dict()
            large.set_params(init=lambda module, state=state: _load(module, state))
            for name, rows in (("train", DATA[:2]), ("test", DATA[2:])):
                expected = check_objective(first, *rows).evaluate()
                assert (record[f"small_{name}_loss"], record[f"small_{name}_accuracy"]) == expected
            assert record["small_weight_distance"] == pytest.approx(first.history_[-1, "weight_distance"])
        large.fit(*DATA[:2])
        for name, rows in (("train", DATA[:2]), ("test", DATA[2:])):
            assert (record[f"{name}_loss"], record[f"{name}_accuracy"]) == check_objective(large, *rows).evaluate()
        assert record["weight_distance"] == large.history_[-1, "weight_distance"]
        expected = sharpness(large, *DATA[:2], random_state=seed).value
        assert record["sharpness_0.001"] == pytest.approx(expected, rel=1e-9)


def test_0_epochs_is_the_large_batch_of_a_comparison(curve):
    report = compare_regimes(
        small(), *DATA, regimes=(50,), reference="50", n_trials=2, epsilons=[1e-3], random_state=0, verbose=0
    )
    for expected, trial in zip(report.records, (0, 1), strict=True):
        (found,) = [r for r in _figures(curve) if (r["trial"], r["small_epochs"]) == (trial, 0)]
        assert {k: found[k] for k in expected if not k.endswith("_seconds") and k != "regime"} == {
            k: v for k, v in expected.items() if not k.endswith("_seconds") and k != "regime"
        }


def test_the_small_batch_is_trained_once_a_trial(monkeypatch):
    fits = []
    original = LBGapClassifier.fit

    def fit(self, *args):
        fits.append(self.batch_regime)
        return original(self, *args)

    monkeypatch.setattr(LBGapClassifier, "fit", fit)
    warm()
    assert sorted(fits) == [10] * 2 + [50] * 6


def test_the_stopping_rule_is_the_large_batch_s_alone():
    curve = warm(small(target_loss=100.0, tol=1e-4), large_epochs=3, n_trials=1)
    assert curve.by_trial("small_n_updates").tolist() == [[0, 10, 20]]
    assert curve.by_trial("n_epochs").tolist() == [[1, 1, 1]]
    assert warm(large_epochs=3, n_trials=1).by_trial("n_epochs").tolist() == [[3, 3, 3]]


def test_a_regime_that_varies_and_an_estimator_with_a_batch_size():
    curve = warm(small(batch_size=25), large=SwitchBatch(1, first=10, then=50), n_trials=1)
    assert curve.by_trial("n_updates").tolist() == [[6, 6, 6]]


class Wrapped(nn.Module):
    """A module that is given as an instance, with arguments that its class has no defaults for."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, X):
        return self.layer(X)


def test_a_module_instance_starts_from_kept_weights_too():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Wrapped(nn.Linear(4, 3))
    before = copy.deepcopy(net.state_dict())
    curve = warm(small(net=net), n_trials=1)
    factory = small(net=Wrapped, module__layer=net.layer, init=lambda module: _load(module, before))
    assert _figures(curve) == _figures(warm(factory, n_trials=1))
    assert len(np.unique(curve.by_trial("train_loss"))) == 3
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("params", [{"ghost_batch_size": 5}, {"net": Mlp}, {"augmentation": lambda X: X}], ids=plain)
def test_other_nets_and_options(params):
    assert len(warm(small(**params), n_trials=1).records) == 3


def test_a_pipeline():
    curve = warm(make_pipeline(StandardScaler(), small()), n_trials=1)
    scaler = StandardScaler().fit(DATA[0])
    data = (scaler.transform(DATA[0]), DATA[1], scaler.transform(DATA[2]), DATA[3])
    assert _figures(curve) == _figures(warm(data=data, n_trials=1))
    assert _figures(warm(make_pipeline(small()), n_trials=1)) == _figures(warm(n_trials=1))


def test_labels_that_are_strings_and_data_frames():
    pd = pytest.importorskip("pandas")
    names = np.array(["no", "perhaps", "yes"])
    expected = _figures(warm(n_trials=1))
    assert _figures(warm(data=(DATA[0], names[DATA[1]], DATA[2], names[DATA[3]]), n_trials=1)) == expected
    frames = [pd.DataFrame(part, columns=list("abcd")) if part.ndim == 2 else pd.Series(part) for part in DATA]
    assert _figures(warm(data=frames, n_trials=1)) == expected


def test_the_estimator_is_not_changed():
    model = small()
    before = repr(model.get_params())
    warm(model, n_trials=1)
    assert repr(model.get_params()) == before
    assert not hasattr(model, "net_")


# -- random numbers and processes --------------------------------------------------------------------------------------


def test_repeatable_from_random_state(curve):
    with torch.random.fork_rng(devices=[]), no_global_random_numbers():
        assert _figures(warm()) == _figures(curve)
    assert _figures(warm(random_state=1)) != _figures(curve)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(curve):
    assert _figures(warm(n_jobs=2)) == _figures(curve)


def test_verbose(capsys):
    warm(n_trials=1, max_small_epochs=2)
    assert capsys.readouterr() == ("", "")
    warm(n_trials=1, max_small_epochs=2, verbose=1)
    shown = capsys.readouterr().err
    assert "small-batch fits" in shown
    assert "2/2" in shown


# -- Ctrl-C and failures -----------------------------------------------------------------------------------------------


def test_ctrl_c_reports_what_had_finished():
    step = 20 + 2 + 1  # one small training, one large one, and a step
    curve = warm(small(net=interrupting_at(step)), n_trials=1)
    assert curve.interrupted
    assert [r["small_epochs"] for r in curve.records] == [0]
    assert "Interrupted: 1 of 3 large-batch fits had finished and are reported." in str(curve)
    with pytest.raises(KeyboardInterrupt):
        warm(small(net=interrupting_at(3)), n_trials=1)


def test_a_small_batch_training_that_diverges_leaves_the_large_batch_from_scratch():
    curve = warm(small(lr=1e30), n_trials=1)
    assert [r["small_epochs"] for r in curve.records] == [0]
    assert "2 of 3 starting points are missing" in str(curve)


# -- bad input: found before anything is trained -----------------------------------------------------------------------

BAD = {
    "max_small_epochs": ({"max_small_epochs": 0}, "max_small_epochs must be an integer of at least 1; got 0."),
    "every": ({"every": 1.5}, "every must be an integer of at least 1; got 1.5."),
    "every too large": ({"every": 5}, "every must be at most max_small_epochs=4; got 5."),
    "large_epochs": ({"large_epochs": 0}, "large_epochs must be None or an integer of at least 1; got 0."),
    "n_trials": ({"n_trials": 0}, "n_trials must be an integer of at least 1; got 0."),
    "small": ({"small": "XL"}, "small must be 'SB', 'LB', an integer, a fraction or a BatchRegime; got 'XL'."),
    "large": ({"large": 0}, "large must be an integer of at least 1, a fraction"),
    "epsilons": ({"epsilons": 1e-3}, "epsilons must be a sequence of numbers above 0; got 0.001."),
    "batch_norm": ({"batch_norm": "train"}, "batch_norm must be one of 'batch', 'population', 'running'; got 'train'."),
    "solver": ({"solver": "best"}, "solver must be one of "),
    "max_samples": ({"max_samples": 0}, "max_samples must be None or an integer of at least 1; got 0."),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values(case, monkeypatch):
    monkeypatch.setattr(LBGapClassifier, "fit", lambda *_: pytest.fail("trained before the error was found"))
    kwargs, sentence = BAD[case]
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        warm(**kwargs)


def test_unknown_labels():
    with pytest.raises(ValueError, match="y_test must have labels that y has"):
        warm(data=(*DATA[:3], DATA[3] + 7))


def test_a_wrong_parameter_of_the_estimator_is_a_sentence():
    with pytest.raises(ValueError, match="lr must be"):
        warm(clone(small()).set_params(lr=-1))
