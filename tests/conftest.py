import importlib

import torch
from hypothesis import settings

# The tensors are tiny: threads would only cost.
torch.set_num_threads(1)

# scikit-learn's switch for its halving searches.
importlib.import_module("sklearn.experimental.enable_halving_search_cv")

# No test depends on time or on an earlier run.
settings.register_profile("sklgap", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("sklgap")
