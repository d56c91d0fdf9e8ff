"""Processes of their own, for what only another process shows.

One server imports the package, once for the whole run of the tests, and forks for each: an import takes seconds.
Its strings have other hashes than those of this process.
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

FRESH = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
if sys.platform != "win32":
    FRESH.set_forkserver_preload(["sklgap"])


def call(function, *args):
    """Return what the function returns, or raise what it raises, in another process."""
    with ProcessPoolExecutor(1, mp_context=FRESH) as pool:
        return pool.submit(function, *args).result(timeout=240)
