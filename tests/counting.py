"""How the work of a function grows, by counting: times would say it on an idle machine only."""

import sys


def lines_run(function):
    """Return how many lines of Python a call runs; every turn of a comprehension counts as one."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def growth(make, n):
    """Return by which factor the work grows that 2 n more things cost after n more did: 2 is linear, 4 quadratic.

    ``make(size)`` returns the function of so many things, ready to be called.
    """
    make(n)()  # what is imported or made once
    one, two, four = (lines_run(make(size)) for size in (n, 2 * n, 4 * n))
    return (four - two) / (two - one)
