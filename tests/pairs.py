"""Products of parameters of which the default run takes every pair, and a slow run the rest."""

import itertools

import pytest


def pairs_of(case):
    """Return every two of a case's values, with the places they stand at."""
    return set(itertools.combinations(enumerate(case), 2))


def pairwise(*axes):
    """Return cases of the product in which any two values of two axes come up together.

    What needs three values to go wrong is left to the whole product.
    """
    product = list(itertools.product(*(range(len(axis)) for axis in axes)))
    left, chosen = set().union(*map(pairs_of, product)), []
    while left:
        chosen.append(max(product, key=lambda case: len(pairs_of(case) & left)))
        left -= pairs_of(chosen[-1])
    return [tuple(axis[i] for axis, i in zip(axes, case, strict=True)) for case in sorted(chosen)]


def product(*axes):
    """Return the whole product for ``pytest.mark.parametrize``: what is not among the pairwise cases is marked slow."""
    axes = [list(axis) for axis in axes]
    fast = pairwise(*(range(len(axis)) for axis in axes))
    return [
        pytest.param(
            *(axis[i] for axis, i in zip(axes, case, strict=True)), marks=[] if case in fast else [pytest.mark.slow]
        )
        for case in itertools.product(*(range(len(axis)) for axis in axes))
    ]
