"""The counter that tests of growth rest on."""

import sys

import pytest

from tests.counting import growth, lines_run


def linear(n):
    return lambda: [i for i in range(n)]


def in_blocks(n):
    def run():
        total = 0
        for i in range(n):
            total += i
        return total

    return run


def quadratic(n):
    return lambda: [[j for j in range(n)] for i in range(n)]


@pytest.mark.parametrize(("make", "expected"), [(linear, 2), (in_blocks, 2), (quadratic, 4)])
def test_growth(make, expected):
    assert growth(make, 50) == pytest.approx(expected, abs=0.1)


def test_every_turn_counts():
    assert lines_run(linear(70)) - lines_run(linear(20)) == 50


def test_a_failing_function_leaves_the_tracer_as_it_was():
    before = sys.gettrace()
    with pytest.raises(ZeroDivisionError):
        lines_run(lambda: 1 / 0)
    assert sys.gettrace() is before
