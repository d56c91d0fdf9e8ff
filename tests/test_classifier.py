"""What a scikit-learn user expects of `LBGapClassifier`: data, labels, nets, pipelines, searches, attributes."""

import copy
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from sklgap.objective import check_objective
from tests.tiny import Mlp, Probabilities, TinyC1, blobs, images, make_mlp, same_weights, small, weights

# Probabilities come from a float64 softmax over a handful of classes: a few roundings.
ROUNDING = 1e-12
# Training in float32 with sums in another order: some hundred roundings of 6e-8, which a few updates carry on.
FLOAT32 = 1e-5


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["list", "float64", "fortran", "pandas", "tensor", "tensor64"])
def test_every_kind_of_x_gives_the_same_model(kind):
    X, y = blobs()
    kinds = {
        "list": lambda: X.tolist(),
        "float64": lambda: X.astype(np.float64),
        "fortran": lambda: np.asfortranarray(X),
        "pandas": lambda: pd.DataFrame(X, columns=list("abcd")),
        "tensor": lambda: torch.from_numpy(X),
        "tensor64": lambda: torch.from_numpy(X).double().requires_grad_(),
    }
    expected = small().fit(X, y)
    other = kinds[kind]()
    model = small().fit(other, y)
    assert same_weights(model, expected)
    np.testing.assert_array_equal(model.predict_proba(other), expected.predict_proba(X))
    assert hasattr(model, "feature_names_in_") == (kind == "pandas")
    if kind == "pandas":
        assert list(model.feature_names_in_) == list("abcd")


def test_read_only_data():
    """What joblib hands to its workers: torch warns of such arrays, once in a process unless told otherwise."""
    X, y = blobs()
    read_only = np.frombuffer(X.tobytes(), dtype=np.float32).reshape(X.shape)
    torch.set_warn_always(True)
    try:
        model = small().fit(read_only, y)
        np.testing.assert_array_equal(model.predict(read_only), model.predict(X))
        check_objective(model, read_only, y).value()
    finally:
        torch.set_warn_always(False)
    assert same_weights(model, small().fit(X, y))


def test_integer_data_are_cast():
    X, y = load_digits(return_X_y=True)
    X, y = X[:100].astype(int), y[:100]
    assert same_weights(small().fit(X, y), small().fit(X.astype(np.float32), y))


@cache
def learnt():
    return small(max_epochs=8, lr=0.03).fit(*blobs())


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 1, 2]),
        np.array([-5, 7, 1000]),
        np.array(["ant", "bee", "cat"]),
        np.array(["ant", "bee", "cat"], dtype=object),
        np.array([0.0, 1.0, 2.0]),
        np.array([1, 2, 3], dtype=np.uint8),
    ],
    ids=["int", "gaps", "str", "object", "float", "uint8"],
)
def test_labels_of_any_kind(labels):
    X, y = blobs()
    model = small(max_epochs=8, lr=0.03).fit(X, labels[y])
    np.testing.assert_array_equal(model.classes_, labels)
    predicted = model.predict(X)
    assert predicted.dtype == labels.dtype
    assert model.score(X, labels[y]) > 0.8  # clouds three deviations apart
    assert same_weights(model, learnt())


def test_boolean_labels_and_labels_in_other_containers():
    X, y = blobs(n_classes=2)
    model = small().fit(X, y == 1)
    assert model.classes_.tolist() == [False, True]
    assert model.predict(X).dtype == bool
    for other in (y.tolist(), pd.Series(y), torch.from_numpy(y)):
        assert same_weights(model, small().fit(X, other))
        assert model.score(X, y == 1) == model.train_score_


def test_data_are_left_as_they_were():
    X, y = blobs()
    X_before, y_before = X.copy(), y.copy()
    small(net=Mlp, augmentation=lambda batch: batch.mul_(2)).fit(X, y)
    np.testing.assert_array_equal(X, X_before)
    np.testing.assert_array_equal(y, y_before)


def test_images_and_their_flat_rows_give_the_same_c1():
    X, y = images()
    flat = X.reshape(len(X), -1)
    model = small(net=TinyC1).fit(X, y)
    from_flat = small(net=TinyC1, input_shape=(1, 8, 8)).fit(flat, y)
    assert same_weights(model, from_flat)
    np.testing.assert_array_equal(model.predict_proba(X), from_flat.predict_proba(flat))
    assert model.n_features_in_ == 1
    assert from_flat.n_features_in_ == 64


def test_known_image_sizes_need_no_input_shape():
    X, y = images(n=8, side=28)
    model = small(net="C1", module__n_filters=2, module__hidden=(4,), max_epochs=1)
    assert same_weights(clone(model).fit(X.reshape(8, 784), y), clone(model).fit(X, y))


def test_dense_net_takes_images():
    X, y = images()
    assert same_weights(small().fit(X, y), small().fit(X.reshape(len(X), -1), y))


# -- nets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["F1", "F2"])
def test_named_nets_take_their_sizes_from_the_data(net):
    X, y = blobs(n_features=7, n_classes=4)
    model = small(net=net, module__width=8).fit(X, y)
    dense = [layer for layer in model.module_.modules() if isinstance(layer, nn.Linear)]
    assert len(dense) == {"F1": 6, "F2": 8}[net]
    assert (dense[0].in_features, dense[0].out_features, dense[-1].out_features) == (7, 8, 4)


@pytest.mark.parametrize("net", [Mlp, make_mlp])
def test_class_and_factory_as_net(net):
    X, y = blobs(n_features=5, n_classes=2)
    model = small(net=net, module__n_in=5, module__n_out=2).fit(X, y)
    assert isinstance(model.module_, Mlp)
    assert model.predict_proba(X).shape == (60, 2)


def test_instance_is_copied_and_trained_from_its_weights():
    X, y = blobs()
    net = Mlp()
    before = copy.deepcopy(net.state_dict())
    model = small(net=net).fit(X, y)
    assert model.net is net
    assert model.module_ is not net
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(model.net_.module_start_[name], before[name])
        assert not torch.equal(weights(model)[name], before[name])
    assert all(p.grad is None for p in net.parameters())
    again = model.fit(X, y)
    assert all(torch.equal(again.net_.module_start_[name], before[name]) for name in before)


def test_frozen_parameters_stay():
    X, y = blobs()
    net = Mlp()
    net.layers[0].weight.requires_grad_(False)
    model = small(net=net).fit(X, y)
    assert torch.equal(model.module_.layers[0].weight, net.layers[0].weight)
    assert not torch.equal(model.module_.layers[2].weight, net.layers[2].weight)


def test_init():
    X, y = blobs()
    limit = np.sqrt(6 / (4 + 8))  # Glorot and Bengio (2010): uniform in +-sqrt(6 / (fan_in + fan_out))

    def start(init):
        return small(net=Mlp, init=init).fit(X, y).net_.module_start_

    def constant(module):
        for p in module.parameters():
            nn.init.constant_(p, 0.125)

    glorot = start("glorot_uniform")
    first = glorot["layers.0.weight"]
    assert 0.7 * limit < first.abs().max() <= limit  # of 32 draws the largest exceeds 0.7 but for a chance of 1e-5
    assert not glorot["layers.0.bias"].any()
    assert start("torch")["layers.0.bias"].any()
    assert all(bool((value == 0.125).all()) for value in start(constant).values())


def test_nll_loss_with_a_module_that_returns_probabilities():
    X, y = blobs()
    model = small(net=Probabilities, criterion=nn.NLLLoss, max_epochs=30, recompute_batch_norm=False).fit(X, y)
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=ROUNDING)
    with torch.no_grad():
        expected = copy.deepcopy(model.module_).double()(torch.from_numpy(X).double()).numpy()
    np.testing.assert_array_equal(proba, expected)
    assert model.score(X, y) > 0.9
    loss = -np.log(proba[np.arange(60), y]).mean()
    # Before the logarithm skorch adds the rounding unit of the outputs: 1.2e-7 in float32.
    assert check_objective(model, X, y).value() == pytest.approx(loss, rel=1e-5)


def test_nll_loss_trains_like_cross_entropy():
    """log(softmax) is what CrossEntropyLoss computes: both start and end at the same loss."""
    X, y = blobs()
    logits = small(net=Mlp, optimizer=torch.optim.SGD, lr=0.1).fit(X, y)
    probabilities = small(net=Probabilities, criterion=nn.NLLLoss, optimizer=torch.optim.SGD, lr=0.1).fit(X, y)
    np.testing.assert_allclose(probabilities.predict_proba(X), logits.predict_proba(X), rtol=FLOAT32, atol=FLOAT32)


def test_training_is_plain_gradient_descent():
    """With all data in a batch, SGD and no remedy, the weights are those of five lines of torch."""
    X, y = blobs()
    net = Mlp()
    model = small(net=net, batch_size=-1, optimizer=torch.optim.SGD, lr=0.5, max_epochs=5).fit(X, y)
    losses = []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(torch.from_numpy(X)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(model.history_[:, "train_loss"], losses, rtol=FLOAT32)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(weights(model)[name], value, rtol=FLOAT32, atol=FLOAT32)


class MakesTensors(Mlp):
    """A user's module that makes tensors of its own in float32."""

    def forward(self, X):
        return super().forward(X) + X @ torch.zeros(4, 3, dtype=torch.float32)


@pytest.mark.parametrize("norm", [False, True])
def test_module_that_knows_float32_only(norm):
    X, y = blobs()
    net = nn.Sequential(nn.BatchNorm1d(4), MakesTensors()) if norm else MakesTensors()
    model = small(net=net, max_epochs=20).fit(X, y)
    assert model.score(X, y) > 0.8  # clouds three deviations apart
    assert model.predict_proba(X).dtype == np.float64
    with torch.no_grad():
        expected = copy.deepcopy(model.module_).eval()(torch.from_numpy(X)).double().softmax(dim=1)
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=ROUNDING)


# -- predictions -------------------------------------------------------------------------------------------------------


def test_predictions_agree_with_the_module_in_evaluation_mode():
    X, y = blobs()
    model = small().fit(X, y)
    proba = model.predict_proba(X)
    assert proba.shape == (60, 3)
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=ROUNDING)
    np.testing.assert_array_equal(model.predict(X), model.classes_[proba.argmax(axis=1)])
    module = copy.deepcopy(model.module_).double().eval()
    with torch.no_grad():
        expected = module(torch.from_numpy(X).double()).softmax(dim=1).numpy()
    np.testing.assert_allclose(proba, expected, rtol=1e-10)


def test_predicting_leaves_the_model_as_it_was():
    X, y = blobs()
    model = small().fit(X, y)
    before, dtype = weights(model), next(model.module_.parameters()).dtype
    history = copy.deepcopy(list(model.history_))
    training = model.module_.training
    model.predict(X)
    model.predict_proba(X)
    model.score(X, y)
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    assert next(model.module_.parameters()).dtype == dtype == torch.float32
    assert list(model.history_) == history
    assert model.module_.training == training


def test_prediction_for_a_row_does_not_depend_on_its_neighbours():
    X, y = images()
    model = small(net=TinyC1).fit(X, y)
    together = model.predict_proba(X)
    alone = np.concatenate([model.predict_proba(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(alone, together, atol=1e-7)  # scikit-learn's own bound in its invariance checks
    shuffled = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(model.predict_proba(X[shuffled]), together[shuffled], atol=1e-9)


# -- attributes --------------------------------------------------------------------------------------------------------


def test_fitted_attributes():
    X, y = blobs()
    model = small(max_epochs=3)
    assert model.fit(X, y) is model
    assert model.module_ is model.net_.module_
    assert model.history_ is model.net_.history
    assert model.n_features_in_ == 4
    assert model.n_iter_ == len(model.history_) == 3
    assert model.n_updates_ == 3 * 8  # SB of 60 rows: 8 of them; 60 = 7 * 8 + 4
    assert model.train_loss_ == model.history_[-1, "train_loss"]
    assert model.train_score_ == model.score(X, y)
    assert isinstance(model.train_loss_, float)
    assert isinstance(model.train_score_, float)
    assert not model.converged_


def test_history_columns():
    X, y = blobs()
    model = small(max_epochs=3).fit(X, y)
    for epoch, row in enumerate(model.history_):
        expected = {"train_loss", "train_accuracy", "batch_size", "lr", "n_updates", "weight_distance", "dur"}
        assert expected <= row.keys()
        assert row["n_updates"] == 8 * (epoch + 1)
        assert row["batch_size"] == 8
        assert row["lr"] == 0.01
        assert row["dur"] > 0
        assert 0 <= row["train_accuracy"] <= 1
    distance = sum(
        (p.detach() - model.net_.module_start_[name]).double().square().sum().item()
        for name, p in model.module_.named_parameters()
    )
    assert model.history_[-1, "weight_distance"] == pytest.approx(np.sqrt(distance), rel=FLOAT32)
    assert list(model.history_[:, "weight_distance"]) == sorted(model.history_[:, "weight_distance"])


def test_history_holds_plain_values_only():
    """Tensors in the history would keep every batch's outputs in memory."""

    def leaves(value):
        if isinstance(value, dict):
            return [leaf for part in value.values() for leaf in leaves(part)]
        if isinstance(value, list | tuple):
            return [leaf for part in value for leaf in leaves(part)]
        return [value]

    found = leaves(list(small().fit(*blobs()).history_))
    assert len(found) > 10
    assert {type(value) for value in found} <= {int, float, bool, str, type(None)}


def test_skorch_is_all_there(tmp_path):
    X, y = blobs()
    model = small().fit(X, y)
    other = small(random_state=1).fit(X, y)
    assert not same_weights(model, other)
    model.net_.save_params(f_params=tmp_path / "weights.pt")
    other.net_.load_params(f_params=tmp_path / "weights.pt")
    assert same_weights(model, other)
    np.testing.assert_allclose(model.net_.predict_proba(X).sum(axis=1), 1, rtol=FLOAT32)
    np.testing.assert_allclose(model.net_.predict_proba(X), model.predict_proba(X), atol=FLOAT32)


def test_inference_mode_is_refused_where_it_trains_and_allowed_where_it_predicts():
    X, y = blobs()
    model = small().fit(X, y)
    expected = model.predict_proba(X)
    with torch.inference_mode():
        np.testing.assert_array_equal(model.predict_proba(X), expected)
        with pytest.raises(RuntimeError, match=r"^torch\.inference_mode must be off"):
            small().fit(X, y)
