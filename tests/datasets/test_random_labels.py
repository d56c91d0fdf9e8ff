import math

import numpy as np
import pandas as pd
import pytest
import torch

from sklgap.datasets import randomize_labels

Y = np.repeat(np.arange(4), 5000)


def test_random_labels_say_nothing():
    drawn = randomize_labels(Y, random_state=0)
    # Every class of true labels has every class of random ones a quarter of the time: five standard errors.
    table = np.array([np.bincount(part) / len(part) for part in np.split(drawn, 4)])
    assert np.abs(table - 1 / 4).max() < 5 * math.sqrt(1 / 4 * 3 / 4 / 5000)


@pytest.mark.parametrize("fraction", [0.2, 0.7])
def test_labels_may_come_back_as_themselves(fraction):
    changed = np.mean(randomize_labels(Y, fraction, random_state=1) != Y)
    expected = fraction * (1 - 1 / 4)
    assert abs(changed - expected) < 5 * math.sqrt(expected * (1 - expected) / len(Y))


def test_classes_become_equally_frequent():
    drawn = randomize_labels(np.repeat([0, 1], [18_000, 2000]), random_state=2)
    assert abs(drawn.mean() - 1 / 2) < 5 * math.sqrt(1 / 4 / 20_000)


def test_neutral_and_repeatable():
    before = Y.copy()
    same = randomize_labels(Y, 0, random_state=0)
    np.testing.assert_array_equal(same, Y)
    assert not np.shares_memory(same, Y)
    np.testing.assert_array_equal(randomize_labels(Y, random_state=3), randomize_labels(Y, random_state=3))
    assert (randomize_labels(Y) != randomize_labels(Y)).any()
    np.testing.assert_array_equal(Y, before)


def test_what_a_smaller_fraction_replaces_a_larger_one_replaces_too():
    some, more = (randomize_labels(Y, fraction, random_state=4) for fraction in (0.3, 0.6))
    replaced = some != Y
    np.testing.assert_array_equal(some[replaced], more[replaced])
    assert (more != Y).sum() > 1.5 * replaced.sum()


@pytest.mark.parametrize(
    "y",
    [
        ["cat", "dog", "dog"] * 20,
        [True, False] * 20,
        pd.Series(["a", "b", "c"] * 20, dtype="category"),
        np.array(["x", "yyy"] * 20, dtype=object),
        torch.arange(60) % 3,
        np.array([[1], [5]] * 20)[:, 0].astype(np.uint8),
    ],
    ids=["list", "bool", "pandas", "object", "torch", "uint8"],
)
def test_labels_of_any_type(y):
    drawn = randomize_labels(y, random_state=0)
    as_array = np.asarray(y)
    assert (type(drawn), drawn.dtype, drawn.shape) == (np.ndarray, as_array.dtype, as_array.shape)
    assert set(drawn) == set(as_array.tolist())


def test_random_state_instance_moves_on_and_the_global_one_stays():
    rng = np.random.RandomState(0)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert (randomize_labels(Y, random_state=rng) != randomize_labels(Y, random_state=rng)).any()
    randomize_labels(Y)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("y", "fraction", "message"),
    [
        (Y, 1.5, r"^fraction must be a number in \[0, 1\]; got 1.5\.$"),
        (Y, -0.1, "fraction must be"),
        (Y, True, "fraction must be"),
        (Y, None, "fraction must be"),
        ([], 1.0, "^y must have at least one label; got an empty y"),
        ([[1, 2], [3, 4]], 1.0, "y should be a 1d array"),
        ([0.5, 1.7, 2.2], 1.0, "Unknown label type"),
    ],
)
def test_bad_input(y, fraction, message):
    with pytest.raises(ValueError, match=message):
        randomize_labels(y, fraction)
