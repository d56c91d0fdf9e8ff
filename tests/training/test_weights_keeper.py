import pickle

import joblib
import numpy as np
import pytest
import torch

from sklgap.training._weights_keeper import KeptWeights, WeightsKeeper
from tests.tiny import blobs, same_weights, small

X, Y = blobs(40)


def _kept(every=1, **params):
    model = small(callbacks=[("keeper", WeightsKeeper(every))], **params).fit(X, Y)
    return dict(model.net_.callbacks_)["keeper"].weights_, model


def test_kept_are_the_weights_of_shorter_trainings():
    kept, model = _kept(every=2, max_epochs=5)
    assert list(kept) == [0, 2, 4]
    start = model.net_.module_start_
    assert all(np.array_equal(kept[0][name], value.numpy()) for name, value in start.items())
    for epoch, weights in list(kept.items())[1:]:
        shorter = small(max_epochs=epoch).fit(X, Y)
        for name, p in shorter.module_.named_parameters():
            np.testing.assert_array_equal(weights[name], p.detach().numpy())
    assert same_weights(model, small(max_epochs=5).fit(X, Y))


@pytest.mark.parametrize("params", [{}, {"ghost_batch_size": 4}], ids=["plain", "ghost"])
def test_a_training_starts_from_kept_weights(params):
    kept, _ = _kept(max_epochs=2, **params)
    model = small(init=KeptWeights(kept[2], 2), **params).fit(X, Y)
    for name, start in model.net_.module_start_.items():
        np.testing.assert_array_equal(start.numpy(), kept[2][name])


def test_buffers_too():
    kept, model = _kept(max_epochs=1, recompute_batch_norm=False)
    other = small(max_epochs=1, random_state=5).fit(X, Y).module_
    KeptWeights(kept[1], 1)(other)
    for name, value in model.module_.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_hashes_and_pickles_by_value():
    (first, _), (second, _) = _kept(), _kept()
    starts = [KeptWeights(kept[1], 1) for kept in (first, second)]
    assert joblib.hash(starts[0]) == joblib.hash(starts[1])
    assert joblib.hash(starts[0]) != joblib.hash(KeptWeights(first[2], 1))
    assert repr(pickle.loads(pickle.dumps(starts[0]))) == "KeptWeights(epoch=1)"
