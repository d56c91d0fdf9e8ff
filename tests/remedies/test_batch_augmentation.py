"""Several augmentations of each sample in a batch."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklgap._typing import Batch, Mix
from sklgap.remedies import Augmentation, BatchAugmentation, Mixup, Remedy
from tests.cases import DOUBLE, PLAIN
from tests.remedies.steps import assert_equal, gradient, step_of, stepped
from tests.tiny import TinyC1, images, same_weights, small

MOVED = Augmentation(flip=False, degrees=20, translate=0.1)


def identity(X):
    return X


class Noise(Remedy):
    """Adds noise, and counts the rows that it has seen."""

    def transform_batch(self, batch, rng):
        noise = torch.randn(batch.X.shape, generator=rng, dtype=torch.float64).to(batch.X)
        return batch._replace(X=batch.X + noise)


@pytest.mark.parametrize("augmentation", [MOVED, identity])
def test_one_copy_is_the_augmentation(augmentation):
    X, y = images()
    alone = small(net=TinyC1, batch_size=7, augmentation=augmentation).fit(X, y)
    assert same_weights(alone, small(net=TinyC1, batch_size=7, remedies=[BatchAugmentation(augmentation, 1)]).fit(X, y))
    assert not same_weights(
        alone, small(net=TinyC1, batch_size=7, remedies=[BatchAugmentation(augmentation, 3)]).fit(X, y)
    )


@pytest.mark.parametrize("n_copies", [2, 3, 5])
@pytest.mark.parametrize("name", PLAIN)
def test_the_loss_is_the_mean_over_all_copies(name, n_copies):
    module, criterion, X, y = PLAIN[name]()
    remedy = BatchAugmentation(Noise(), n_copies)
    gradients, result, _ = stepped(PLAIN[name](), [remedy])
    noise = torch.randn(n_copies * len(X), *X.shape[1:], generator=torch.Generator().manual_seed(3), dtype=X.dtype)
    copies = [X + part for part in noise.split(len(X))]
    loss = sum(criterion(module(copy), y) for copy in copies) / n_copies
    assert_equal(gradients, gradient(module, loss), DOUBLE)
    assert_equal(result["loss"], loss.detach(), DOUBLE)
    assert_equal(result["y_pred"], module(copies[0]).detach(), DOUBLE)  # of the samples given, for the accuracy


def test_all_that_belongs_to_a_sample_is_copied():
    t = torch.arange(4.0)
    batch = Batch(t, t + 1, t + 2, t + 3, {"a": t + 4}, Mix(t + 5, t + 6), 9)
    found = BatchAugmentation(identity, 2).transform_batch(batch, torch.Generator())
    tensors = (found.X, found.y, found.weight, found.factor, found.extra["a"], *found.mix)
    assert [x.tolist() for x in tensors] == [2 * (t + i).tolist() for i in range(7)]
    assert found.number == 9


@pytest.mark.parametrize("weight", [None, "samples"])
def test_micro_batches_and_weights(weight):
    module, criterion, X, y = PLAIN["conv"]()
    weight = None if weight is None else torch.arange(len(y)).double() % 4
    found = []
    for size in (None, 5):
        step = step_of(PLAIN["conv"]()[0], criterion, [BatchAugmentation(Noise(), 3)], micro_batch_size=size)
        found.append(step.gradient(Batch(X, y, weight), torch.Generator().manual_seed(1)))
    assert_equal(found[0], found[1], DOUBLE)
    noise = torch.randn(3 * len(X), *X.shape[1:], generator=torch.Generator().manual_seed(1), dtype=X.dtype)
    counts = torch.ones(len(y), dtype=torch.float64) if weight is None else weight
    rows = torch.nn.functional.cross_entropy(module(X.repeat(3, 1, 1, 1) + noise), y.repeat(3), reduction="none")
    loss = (counts.repeat(3) * rows).sum() / (3 * counts.sum())
    assert_equal(found[0], gradient(module, loss), DOUBLE)


@pytest.mark.parametrize("params", [{"ghost_batch_size": 5}, {"micro_batch_size": 6}, {"class_weight": "balanced"}])
def test_fits_beside_other_parameters(params):
    X, y = images()
    weight = np.arange(len(y)) % 3 + 1.0
    model = small(
        net=TinyC1, batch_size=10, max_epochs=8, lr=0.03, remedies=[BatchAugmentation(MOVED, 2), Mixup(0.2)], **params
    )
    assert model.fit(X, y, sample_weight=weight).score(X, y) > 0.8
    assert model.history_[-1, "batch_size"] == 10
    assert 0 <= model.history_[-1, "train_accuracy"] <= 1


def test_names_of_recipes_nested_names_and_rows_that_are_no_images():
    X, y = images(channels=3, side=8)
    flat = X.reshape(len(X), -1)
    by_name = small(net="F1", module__width=6, module__n_layers=1, input_shape=(3, 8, 8))
    model = clone(by_name).set_params(remedies=[BatchAugmentation("crop-flip", 2)]).fit(flat, y)
    recipe = Augmentation(degrees=0.0, translate=0.0, crop_padding=4)
    same = clone(by_name).set_params(remedies=[BatchAugmentation(recipe, 2)])
    assert same_weights(model, same.fit(flat, y))
    same.set_params(remedies__batchaugmentation__augmentation__crop_padding=2).fit(flat, y)
    assert not same_weights(model, same)
    assert recipe.image_shape is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_copies": 0}, "n_copies must be an integer of at least 1; got 0"),
        ({"n_copies": 1.5}, r"n_copies must be an integer of at least 1; got 1\.5"),
        ({"augmentation": "crop"}, "augmentation must be None, 'paper', .*; got 'crop'"),
        ({"augmentation": Augmentation(flip=1)}, "flip must be True or False; got 1"),
        ({"augmentation": Augmentation(flip=False, crop_padding=8)}, "crop_padding must be less than the smaller side"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        small(net=TinyC1, remedies=[BatchAugmentation(**{"augmentation": MOVED, **params})]).fit(*images())
