import itertools

import pytest

from tests.pairs import pairs_of, pairwise, product


@pytest.mark.parametrize(
    "axes", [("abc", "xy"), ("abc", "xyz", "12"), ("abcdefg", "xyz", "xyz", "12"), ("a", "b", "c")]
)
def test_every_pair_comes_up(axes):
    whole = set(itertools.product(*axes))
    cases = pairwise(*axes)
    assert whole.issuperset(cases)
    assert set().union(*map(pairs_of, cases)) == set().union(*map(pairs_of, whole))
    sizes = sorted(map(len, axes))
    assert sizes[-1] * sizes[-2] <= len(cases) == len(set(cases)) <= 1.5 * sizes[-1] * sizes[-2]


def test_the_rest_of_the_product_is_slow():
    params = product("abc", "xyz", "12")
    assert [param.values for param in params] == list(itertools.product("abc", "xyz", "12"))
    assert [param.values for param in params if not param.marks] == pairwise("abc", "xyz", "12")
    assert {mark.name for param in params for mark in param.marks} == {"slow"}
