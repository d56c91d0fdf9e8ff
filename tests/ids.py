"""Names of test cases that are the same in every process, as pytest-xdist needs them."""

import re


def plain(value):
    """Return a value as text without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
