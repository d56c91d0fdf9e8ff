"""get_params, set_params and clone with nested names, and misspelt names."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import LRScheduler

from sklgap import LBGapClassifier
from sklgap.regimes import GrowingBatch, SwitchBatch
from sklgap.remedies import Augmentation, Proximal
from tests.tiny import Mlp, blobs, images, same_weights, small

NESTED = {
    "module__width": 8,
    "module__n_layers": 1,
    "optimizer__weight_decay": 0.01,
    "criterion__label_smoothing": 0.1,
    "iterator_train__shuffle": True,
    "iterator_valid__batch_size": 7,
}


def test_nested_names_survive_get_params_and_clone():
    model = LBGapClassifier(max_epochs=1, tol=None, random_state=0, **NESTED)
    assert NESTED.items() <= model.get_params(deep=False).items()
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    assert all(f"{name}=" in repr(copied) for name in ("module__width", "optimizer__weight_decay"))
    X, y = blobs()
    net = copied.fit(X, y).net_
    assert net.module_.layers[1].out_features == 8
    assert net.optimizer_.param_groups[0]["weight_decay"] == 0.01
    assert net.criterion_.label_smoothing == 0.1
    assert same_weights(copied, model.fit(X, y))


def test_nested_names_by_set_params():
    X, y = blobs()
    by_set = LBGapClassifier(max_epochs=1, tol=None, random_state=0).set_params(**NESTED)
    by_init = LBGapClassifier(max_epochs=1, tol=None, random_state=0, **NESTED)
    assert by_set.get_params() == by_init.get_params()
    assert same_weights(by_set.fit(X, y), by_init.fit(X, y))
    by_set.set_params(module__width=3).fit(X, y)
    assert by_set.module_.layers[1].out_features == 3
    assert by_init.module__width == 8


def test_set_params_returns_the_model_and_sets_own_parameters():
    model = LBGapClassifier()
    assert model.set_params(batch_size=0.5, lr=0.1) is model
    assert (model.batch_size, model.lr) == (0.5, 0.1)
    assert model.set_params() is model


def test_skorch_parts_are_parameters():
    class Loader(torch.utils.data.DataLoader):
        pass

    model = LBGapClassifier(iterator_train=Loader)
    assert clone(model).get_params()["iterator_train"] is Loader
    assert "iterator_train" not in LBGapClassifier().get_params()


def test_parameters_of_a_regime():
    model = small(batch_regime=SwitchBatch(switch_epoch=5, first=10, then=0.5))
    assert model.get_params()["batch_regime__switch_epoch"] == 5
    copied = clone(model).set_params(batch_regime__switch_epoch=1)
    assert model.batch_regime.switch_epoch == 5
    assert copied.fit(*blobs()).history_[:, "batch_size"] == [10, 30]


def test_regime_and_its_parameter_at_once():
    model = small().set_params(batch_regime=GrowingBatch(), batch_regime__initial=12)
    assert model.batch_regime.initial == 12


def test_parameters_of_an_augmentation():
    model = small(augmentation=Augmentation(flip=False, degrees=5))
    assert model.get_params()["augmentation__degrees"] == 5
    assert clone(model).set_params(augmentation__degrees=7).augmentation.degrees == 7
    assert model.augmentation.degrees == 5


def test_parameters_of_named_remedies():
    model = small(remedies=[("near", Proximal(0.5, 2)), Proximal(0.25, 1)])
    params = model.get_params()
    assert params["remedies__near__proximal_lambda"] == 0.5
    assert params["remedies__proximal__inner_steps"] == 1
    copied = clone(model).set_params(remedies__near__inner_steps=4)
    assert model.get_params()["remedies__near__inner_steps"] == 2
    assert copied.get_params()["remedies__near__inner_steps"] == 4
    X, y = blobs()
    assert copied.fit(X, y).n_updates_ == 4 * 8 * 2
    assert model.fit(X, y).n_updates_ == 2 * 8 * 2
    assert "remedies__near__inner_steps" not in model.get_params(deep=False)


def test_remedies_and_a_parameter_of_theirs_at_once():
    model = small().set_params(remedies=[("near", Proximal())], remedies__near__inner_steps=5)
    assert model.get_params()["remedies__near__inner_steps"] == 5


def test_search_over_a_parameter_of_a_remedy():
    X, y = blobs()
    search = GridSearchCV(small(remedies=[("near", Proximal())]), {"remedies__near__inner_steps": [1, 2]}, cv=2)
    search.fit(X, y)
    assert search.best_estimator_.n_updates_ == search.best_params_["remedies__near__inner_steps"] * 8 * 2


def test_search_over_a_parameter_of_a_regime():
    X, y = blobs()
    search = GridSearchCV(small(batch_regime=SwitchBatch(first=10)), {"batch_regime__switch_epoch": [0, 1]}, cv=2)
    search.fit(X, y)
    sizes = {0: [6, 6], 1: [10, 6]}  # 0.1 of 60 rows from the switch on
    best = search.best_estimator_
    assert best.history_[:, "batch_size"] == sizes[search.best_params_["batch_regime__switch_epoch"]]


def test_proximal_lambda_is_the_remedy():
    X, y = blobs()
    by_parameter = small(proximal_lambda=0.3, proximal_steps=2).fit(X, y)
    assert same_weights(by_parameter, small(remedies=[Proximal(0.3, 2)]).fit(X, y))
    assert not same_weights(by_parameter, small(proximal_lambda=0.0, proximal_steps=2).fit(X, y))


def test_paper_augmentation_is_the_remedy():
    X, y = images(channels=3)
    by_name = small(augmentation="paper").fit(X, y)
    assert same_weights(by_name, small(augmentation=Augmentation()).fit(X, y))
    assert same_weights(by_name, small(remedies=[Augmentation()]).fit(X, y))
    flat = small(augmentation="paper", input_shape=(3, 8, 8)).fit(X.reshape(len(X), -1), y)
    assert same_weights(by_name, flat)
    assert not same_weights(by_name, small().fit(X, y))


def test_augmentation_among_the_remedies_gets_the_shape_of_flat_rows():
    X, y = images(n=16, side=28)
    flat, own = X.reshape(16, 784), Augmentation(flip=False)
    model = small(remedies=(own,), max_epochs=1).fit(flat, y)
    assert own.image_shape is None
    assert same_weights(model, small(augmentation=own, max_epochs=1).fit(flat, y))
    assert same_weights(model, small(remedies=[own], max_epochs=1).fit(X, y))
    assert not same_weights(model, small(max_epochs=1).fit(flat, y))


def test_augmentation_that_mirrors_digits_warns():
    X, y = images(channels=1)
    with pytest.warns(UserWarning, match=r"Augmentation\(flip=False\)"):
        small(augmentation="paper").fit(X, y)
    small(augmentation=Augmentation(flip=False)).fit(X, y)


def test_callable_augmentation():
    X, y = blobs()
    seen = []

    def double(batch):
        seen.append(tuple(batch.shape))
        return 2 * batch

    model = small(augmentation=double, recompute_batch_norm=False).fit(X, y)
    assert len(seen) == model.n_updates_
    assert set(seen) == {(8, 4), (4, 4)}
    assert same_weights(model, small(recompute_batch_norm=False).fit(2 * X, y))


def test_regime_shorthands():
    X, y = blobs(n=200)
    sizes = {"SB": 8, "LB": 20, 13: 13, 0.25: 50, 1.0: 200}
    for regime, size in sizes.items():
        assert small(batch_regime=regime).fit(X, y).history_[:, "batch_size"] == [size, size]
    for batch_size, size in [(13, 13), (0.25, 50), (1.0, 200), (-1, 200), (1, 1), (np.int64(7), 7), (1e-9, 1)]:
        assert small(net=Mlp, batch_size=batch_size).fit(X, y).history_[:, "batch_size"] == [size, size]
    assert small(batch_regime="LB", batch_size=33).fit(X, y).history_[0, "batch_size"] == 33


def test_fit_changes_no_parameter():
    X, y = blobs()
    params = {
        "batch_regime": SwitchBatch(1, 10, 20),
        "remedies": [("near", Proximal())],
        "callbacks": [("schedule", LRScheduler("StepLR", step_size=1))],
    }
    model = small(**params)
    before = {name: copy.deepcopy(value) for name, value in vars(model).items()}
    model.fit(X, y)
    for name, value in params.items():
        assert getattr(model, name) is value
    assert model.device == "auto"
    assert vars(model.callbacks[0][1]) == vars(before["callbacks"][0][1])
    assert vars(model.batch_regime) == vars(before["batch_regime"])
    assert vars(model.remedies[0][1]) == vars(before["remedies"][0][1])


# -- misspelt names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("batch_sise", "batch_size"),
        ("max_epoch", "max_epochs"),
        ("proximal_lamda", "proximal_lambda"),
        ("optimiser", "optimizer"),
        ("optimiser__momentum", "optimizer__momentum"),
        ("modul__width", "module__width"),
        ("iterator_trian__shuffle", "iterator_train__shuffle"),
        ("iterator_trian", "iterator_train"),
        ("learning_rate", "lr"),
        ("weight_decay", "optimizer__weight_decay"),
        ("width", "module__width"),
    ],
)
def test_misspelt_name(wrong, right):
    with pytest.raises(TypeError, match=f"LBGapClassifier has no parameter '{wrong}'; did you mean '{right}'"):
        LBGapClassifier(**{wrong: 1})
    with pytest.raises(ValueError, match=f"LBGapClassifier has no parameter '{wrong}'; did you mean '{right}'"):
        LBGapClassifier().set_params(**{wrong: 1})


def test_name_far_from_any():
    with pytest.raises(TypeError, match=r"has no parameter 'qqq'$"):
        LBGapClassifier(qqq=1)


@pytest.mark.parametrize(
    ("params", "wrong", "right"),
    [
        ({"batch_regime": SwitchBatch()}, "batch_regime__swich_epoch", "switch_epoch"),
        ({"batch_regime": "SB"}, "batch_regime__switch_epoch", "has no parameter 'batch_regime__switch_epoch'"),
        ({"augmentation": Augmentation()}, "augmentation__degree", "degrees"),
        ({"remedies": [("near", Proximal())]}, "remedies__near__proximal_lamda", "remedies__near__proximal_lambda"),
        ({"remedies": [("near", Proximal())]}, "remedies__neer__proximal_lambda", "remedies__near__proximal_lambda"),
    ],
)
def test_misspelt_parameter_of_a_component(params, wrong, right):
    with pytest.raises(ValueError, match=right):
        LBGapClassifier(**params).set_params(**{wrong: 1})


@pytest.mark.parametrize(
    ("params", "right"),
    [
        ({"optimizer": torch.optim.SGD, "optimizer__momentm": 0.9}, "momentum"),
        ({"optimizer__weight_decya": 0.1}, "weight_decay"),
        ({"module__widht": 8}, "width"),
        ({"criterion__label_smooting": 0.1}, "label_smoothing"),
        ({"iterator_train__shufle": True}, "shuffle"),
    ],
)
def test_misspelt_argument_of_a_torch_part(params, right):
    """Which arguments exist is known only with the part itself: in ``fit``, before training."""
    X, y = blobs()
    model = LBGapClassifier(tol=None, max_epochs=1, **params)
    with pytest.raises(TypeError, match=f"did you mean '{right}'"):
        model.fit(X, y)


def test_argument_of_the_wrong_optimizer():
    X, y = blobs()
    with pytest.raises(TypeError, match="optimizer__momentum is not an argument of Adam"):
        small(optimizer__momentum=0.9).fit(X, y)


@pytest.mark.parametrize("name", ["module__n_features", "module__n_classes"])
def test_sizes_of_a_named_net_cannot_be_set(name):
    X, y = blobs()
    with pytest.raises(ValueError, match=f"{name} cannot be set .* because it comes from the data"):
        small(**{name: 3}).fit(X, y)


def test_misspelt_callback():
    X, y = blobs()
    model = small(callbacks=[("schedule", LRScheduler("StepLR", step_size=1))], callbacks__shedule__step_size=2)
    with pytest.raises((TypeError, ValueError), match="shedule"):
        model.fit(X, y)


def test_parameter_of_a_callback():
    X, y = blobs()
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.5)
    model = small(callbacks=[("schedule", schedule)], callbacks__schedule__gamma=0.1, max_epochs=3).fit(X, y)
    assert model.history_[:, "lr"] == pytest.approx([0.01, 0.001, 0.0001])
