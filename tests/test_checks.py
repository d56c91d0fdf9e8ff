import math

import numpy as np
import pytest

from sklgap._checks import (
    check_fraction,
    check_integer,
    check_max_samples,
    check_nonnegative,
    check_positive,
    check_random_state,
    is_integer,
    is_number,
    naming_data,
    resolve_max_samples,
)


def test_errors_that_blame_another_argument_are_not_said_to_be_about_the_data():
    for text in ("module must be deterministic", "criterion must return the mean loss", "X must have 3 columns"):
        with pytest.raises(ValueError, match=f"^{text}$"), naming_data("X", "y"):
            raise ValueError(text)
    with (
        pytest.raises(ValueError, match=r"^X and y must be arrays .*: setting an array element"),
        naming_data("X", "y"),
    ):
        raise ValueError("setting an array element with a sequence")


def test_integers():
    check_integer("k", np.int64(3), 3)
    check_integer("k", None, 3, or_none=True)
    for value in (2, 3.0, True, "3", None):
        with pytest.raises(ValueError, match=f"k must be an integer of at least 3; got {value!r}"):
            check_integer("k", value, 3)
    with pytest.raises(ValueError, match="k must be None or an integer of at least 3; got 2"):
        check_integer("k", 2, 3, or_none=True)
    assert is_integer(np.uint8(1), 1)
    assert not is_integer(np.bool_(True), 0)


def test_numbers():
    for value in (0, 0.5, np.float32(2), np.int64(1)):
        check_nonnegative("a", value)
    check_nonnegative("a", None, or_none=True)
    for value in (-1e-9, math.nan, math.inf, True, "1", None, 1j):
        with pytest.raises(ValueError, match="a must be a number of at least 0; got"):
            check_nonnegative("a", value)
    with pytest.raises(ValueError, match="a must be None or a number of at least 0; got -1"):
        check_nonnegative("a", -1, or_none=True)
    for value in (0, -1, math.inf, False):
        with pytest.raises(ValueError, match=f"a must be a number above 0; got {value!r}"):
            check_positive("a", value)
    assert is_number(math.inf, finite=False)
    assert not is_number(math.inf)


def test_fractions():
    check_fraction("a", 0)
    check_fraction("a", 1.0, above=0)
    for value in (-0.1, 1.1, math.nan, "0.5", True):
        with pytest.raises(ValueError, match=r"a must be a number in \[0, 1\]; got"):
            check_fraction("a", value)
    with pytest.raises(ValueError, match=r"a must be a number in \(0, 1\]; got 0"):
        check_fraction("a", 0, above=0)


def test_a_fresh_random_state_for_none():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert check_random_state(None).randint(2**31 - 1) != check_random_state(None).randint(2**31 - 1)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    rng = np.random.RandomState(3)
    assert check_random_state(rng) is rng
    assert check_random_state(3).rand() == np.random.RandomState(3).rand()


@pytest.mark.parametrize("random_state", ["seed", -1, 2**32, 0.5, np.random.default_rng(0)], ids=str)
def test_what_is_no_random_state(random_state):
    with pytest.raises(ValueError, match=r"random_state must be None, an integer from 0 to 2\*\*32 - 1 or .*; got "):
        check_random_state(random_state)


@pytest.mark.parametrize(
    ("max_samples", "n"),
    [
        (None, 60),
        (7, 7),
        (60, 60),
        (1000, 60),
        (1, 1),
        (1.0, 60),
        (0.25, 15),
        (1e-9, 1),
        (np.int64(4), 4),
        (np.float32(0.5), 30),
    ],
)
def test_number_of_samples(max_samples, n):
    check_max_samples(max_samples)
    found = resolve_max_samples(max_samples, 60)
    assert found == n
    assert isinstance(found, int)


@pytest.mark.parametrize("max_samples", [0, -1, 0.0, 1.5, -0.5, True, math.nan, math.inf, "all", [3]], ids=str)
def test_what_is_no_number_of_samples(max_samples):
    sentence = r"max_samples must be None, an integer of at least 1 or a float in \(0, 1\]; got "
    with pytest.raises(ValueError, match=sentence):
        check_max_samples(max_samples)
    with pytest.raises(ValueError, match=sentence):
        resolve_max_samples(max_samples, 60)
