"""Settings of the tests: threads, processes, examples of hypothesis."""

import gc
import importlib

from hypothesis import settings

# No test depends on time or on an earlier run. More examples: pytest --hypothesis-profile thorough
settings.register_profile("sklgap", deadline=None, derandomize=True, database=None, max_examples=25)
settings.register_profile("thorough", settings.get_profile("sklgap"), max_examples=200)
settings.load_profile("sklgap")

# Every process imports torch, which takes seconds: fewer tests than this are faster in one.
FEW_FILES = 2


def is_controller(config):
    """Whether this process only hands out tests to others."""
    option = config.option
    return not hasattr(config, "workerinput") and bool(getattr(option, "tx", None)) and not option.collectonly


def pytest_xdist_auto_num_workers(config):
    """Where few files are asked for, ``-n auto`` starts no processes."""
    named = [argument.partition("::")[0] for argument in config.option.file_or_dir]
    few = named and len(set(named)) <= FEW_FILES and all(name.endswith(".py") for name in named)
    return 0 if few else None


def pytest_configure(config):
    if is_controller(config):
        return
    # The tensors are tiny, and every process of pytest-xdist has a core: threads would only cost.
    import torch

    torch.set_num_threads(1)
    # scikit-learn's switch for its halving searches.
    importlib.import_module("sklearn.experimental.enable_halving_search_cv")


def pytest_collection_finish():
    # What the imports have left stays to the end: no search for garbage needs to go through it.
    gc.freeze()
