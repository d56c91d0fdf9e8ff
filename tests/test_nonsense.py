"""Nonsense in every argument of everything public: one sentence that names the argument, or a documented meaning."""

import numpy as np
import pytest

import sklgap
from sklgap import datasets, experiments, inspection, metrics, monitor, objective, regimes
from tests import nonsense
from tests.ids import plain
from tests.tiny import blobs, small

X, Y = blobs(24)
N_SAMPLED = 700  # of some 27,000; a value of every argument is among them


def assert_understood(cases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = []
    for name, call, argument, value, thunk in cases:
        why = nonsense.verdict(call, argument, thunk)
        if why:
            wrong.append(f"{name}({argument}={value}): {' '.join(why.split())[:200]}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:40])


def test_values_of_every_argument(tmp_path, monkeypatch):
    """A sample in which every argument comes up."""
    rng = np.random.default_rng(0)
    cases = list(nonsense.nonsense())
    chosen = set(rng.choice(len(cases), N_SAMPLED, replace=False).tolist())
    seen = set()
    for i in rng.permutation(len(cases)).tolist():
        if cases[i][:3:2] not in seen:
            seen.add(cases[i][:3:2])
            chosen.add(i)
    assert len(chosen) >= N_SAMPLED
    assert_understood([cases[i] for i in sorted(chosen)], tmp_path, monkeypatch)


@pytest.mark.slow
def test_every_value(tmp_path, monkeypatch):
    assert_understood(nonsense.nonsense(), tmp_path, monkeypatch)


def test_everything_public_that_takes_numbers_is_there():
    """A new public function must enter the list."""
    elsewhere = {"__version__", "BatchRegime", "Remedy", "RestrictedObjective", "Subspace", "Evaluation", "LRSchedule"}
    elsewhere |= {"CompileWarning"}
    names = {*sklgap.__all__, *metrics.__all__, *objective.__all__, *datasets.__all__}
    names |= {name for name in (*regimes.__all__, *inspection.__all__, *experiments.__all__) if name[0].islower()}
    names |= {*monitor.__all__} - {"AccumulationCheck"}
    displays = {name for name in (*inspection.__all__, *experiments.__all__) if name.endswith("Display")}
    covered = {*nonsense.calls(), "check_lr_scaling"}  # the last is checked by lr_factor
    assert names - covered - displays - elsewhere == set()
    assert {f"{name}.plot" for name in displays} <= covered


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"optimizer__betas": [0.5]}, r"^optimizer__betas must be valid for Adam: "),
        ({"optimizer__betas": (0.5, 0.9, 0.9)}, r"^optimizer__betas must be valid for Adam: "),
        ({"optimizer__betas": "ab"}, r"^optimizer__betas must be valid for Adam: "),
        ({"optimizer__weight_decay": float("inf")}, r"^optimizer__weight_decay must be a finite number; got inf\.$"),
        ({"optimizer__amsgrad": "no"}, r"^optimizer__amsgrad must be True or False; got 'no'\.$"),
        ({"module__width": 0}, r"^module__width must be valid for F1: width must be an integer from 1 to .*; got 0"),
        ({"module__width": 10**12}, r"^module__width must be valid for F1: width must be an integer from 1 to "),
        ({"module__n_layers": 1.5}, r"^module__n_layers must be valid for F1: n_layers must be an integer of"),
        (
            {"criterion__weight": [1, 2]},
            r"^criterion__weight must hold one number for each of the 3 classes; got \(2,\)",
        ),
        ({"criterion__weight": [1, 2, float("nan")]}, r"^criterion__weight must hold finite numbers of at least 0"),
        ({"criterion__weight": [0, 0, 0]}, r"^criterion__weight must hold .* not all 0"),
        ({"criterion__weight": "balanced"}, r"^criterion__weight must hold numbers; got 'balanced'"),
        ({"criterion__label_smoothing": -np.inf}, r"^criterion__label_smoothing must be a finite number; got -inf"),
        ({"criterion__label_smoothing": -0.1}, r"^criterion__label_smoothing must be a number in \[0, 1\]; got -0\.1"),
        ({"criterion__reduction": 3}, r"criterion__reduction"),
        ({"iterator_train__num_workers": -1}, r"^iterator_train__num_workers must be valid for DataLoader: "),
        ({"random_state": "x"}, r"^random_state must be None, an integer of at least 0 or a RandomState; got 'x'"),
        ({"random_state": 10**30}, r"^random_state must be below 2\*\*63"),
        ({"verbose": "loud"}, r"^verbose must be True, False or an integer of at least 0; got 'loud'"),
        ({"warm_start": np.zeros(2)}, r"^warm_start must be True or False; got array\(\[0\., 0\.\]\)\.$"),
        ({"lr_scaling": np.zeros((1, 2))}, r"^lr_scaling must be None, 'sqrt', 'linear' or 'sde'; got array"),
        ({"optimizer": int}, r"^optimizer must be "),
        ({"train_split": len}, r"^train_split must be "),
        ({"net": len}, r"^net must be "),
        ({"init": len}, r"^init must be a function of a module, but it failed"),
        ({"callbacks": [iter([])]}, r"^callbacks must be "),
    ],
    ids=plain,
)
def test_values_that_would_reach_torch(params, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence) as caught:
        small(**params).fit(X, Y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weight", [[1, 2, 3], (0.5, 0, 1.0), np.array([1.0, 2.0, 3.0]), None])
def test_class_weights_as_a_sequence(weight):
    model = small(criterion__weight=weight).fit(X, Y)
    if weight is not None:
        np.testing.assert_array_equal(model.net_.criterion_.weight.numpy(), np.asarray(weight, dtype=np.float32))


@pytest.mark.parametrize("bad", [None, "x", object(), len, 1 + 2j, [[1, [2]], 3], {"a": 1}])
def test_data_that_are_none(bad):
    model = small().fit(X, Y)
    for call in (small().fit, model.score):
        with pytest.raises((ValueError, TypeError), match=r"\bX\b"):
            call(bad, Y)
        with pytest.raises((ValueError, TypeError), match=r"\by\b"):
            call(X, bad)
    with pytest.raises((ValueError, TypeError), match=r"^X must be an array with one row per sample"):
        model.predict(bad)
    with pytest.raises((ValueError, TypeError), match=r"\bX\b"):
        inspection.sharpness(model, bad, Y)


@pytest.mark.parametrize(
    "given",
    [{"batch_norm": "nonsense"}, {"epsilon": -1}, {"epsilon": [1e-3, 5e-4]}, {"solver": 3}, {"subspace_dim": 0}]
    + [{"max_samples": 0}, {"random_state": "x"}, {"greater_is_better": "no"}, {"batch_norm": None}],
    ids=plain,
)
def test_a_scorer_refuses_at_once(given):
    with pytest.raises((ValueError, TypeError), match=next(iter(given))):
        metrics.make_sharpness_scorer(**given)
