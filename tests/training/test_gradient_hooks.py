"""A gradient hook on a parameter gets the gradient of each batch, as in plain torch, or is refused before training."""

import copy
import pickle

import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from skorch.callbacks import Callback
from torch import nn

from sklgap.objective._gradient_hooks import hooked_parameter
from sklgap.remedies import (
    SAM,
    Adversarial,
    EntropySGD,
    GradientPenalty,
    LabelSmoothing,
    Mixup,
    Proximal,
    Remedy,
    SampleNoise,
    Stability,
)
from sklgap.training._gradient_hooks import check_gradient_hooks
from tests.tiny import Mlp, blobs, same_weights, small

X, Y = blobs()
FROZEN = "layers.0.weight"


def freeze(gradient):
    """Freeze the first three rows, and halve the others."""
    return torch.cat([torch.zeros_like(gradient[:3]), gradient[3:] / 2])


class Plain(Mlp):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            for layer in (self.layers[0], self.layers[2]):
                layer.reset_parameters()


class Hooked(Plain):
    def __init__(self):
        super().__init__()
        self.layers[0].weight.register_hook(freeze)


class Late(Plain):
    def __init__(self):
        super().__init__()
        self.layers[0].weight.register_post_accumulate_grad_hook(lambda p: p.grad[:3].zero_())


def fitting(net=Hooked, **params):
    return small(**{"net": net, "init": "torch", "batch_size": -1, "optimizer": torch.optim.SGD, "lr": 0.5, **params})


def moved(model):
    return (model.module_.layers[0].weight - Plain().layers[0].weight).detach().abs().amax(dim=1)


def by_hand(n_updates=2):
    module = Hooked()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(n_updates):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
        optimizer.step()
    return module


@pytest.mark.parametrize(
    "params", [{}, {"compile": True, "compile__backend": "aot_eager"}, {"warm_start": True}], ids=str
)
def test_a_class_trains_as_plain_torch(params):
    model = fitting(**params).fit(X, Y)
    for ours, theirs in zip(model.module_.parameters(), by_hand().parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    if "warm_start" in params:
        model.fit(X, Y)
        torch.testing.assert_close(model.module_.layers[0].weight, by_hand(4).layers[0].weight, rtol=1e-5, atol=1e-6)


WORKS = [
    Adversarial(0.2),
    LabelSmoothing(0.3),
    Mixup(1.0),
    Proximal(0.5, inner_steps=2),
    SampleNoise(0.5),
    Stability(0.3, weight=0.5),
]


@pytest.mark.parametrize("remedy", WORKS, ids=lambda remedy: type(remedy).__name__)
def test_remedies_with_one_gradient_per_update_call_the_hook(remedy):
    found = moved(fitting(remedies=[remedy]).fit(X, Y))
    assert float(found[:3].max()) == 0
    assert float(found[3:].min()) > 0


class Clips(Remedy):
    def transform_grad(self, grad_fn, state):
        return grad_fn


@pytest.mark.parametrize(
    "remedy", [SAM(), SAM(0.5, adaptive=True), EntropySGD(3), GradientPenalty(), Clips()], ids=repr
)
def test_remedies_that_transform_gradients_are_refused(remedy):
    with pytest.raises(ValueError, match=rf"^net must not have .* the remedy {type(remedy).__name__}.*'{FROZEN}'"):
        fitting(remedies=[Proximal(0.5), remedy]).fit(X, Y)
    fitting(net=Plain, remedies=[remedy]).fit(X, Y)


def test_parts_of_a_batch_are_refused():
    with pytest.raises(ValueError, match=rf"^net must not have .* with micro_batch_size.*'{FROZEN}'; leave out"):
        fitting(micro_batch_size=20).fit(X, Y)
    with pytest.raises(ValueError, match=rf"^net must not have .* with data_parallel.*'{FROZEN}'; leave out"):
        check_gradient_hooks(Hooked(), [], None, True)
    check_gradient_hooks(Plain(), [SAM()], 20, True)


@pytest.mark.parametrize("instance", [False, True])
def test_hooks_after_the_accumulation_are_refused(instance):
    words = "not have gradient hooks on its parameters" if instance else "run after gradients are accumulated"
    with pytest.raises(ValueError, match=rf"^net must .*{words}.*'{FROZEN}'"):
        fitting(net=Late() if instance else Late).fit(X, Y)


def test_an_instance_is_refused_because_its_copy_has_no_hook():
    net = Hooked()
    model = fitting(net=net)
    for act in (lambda: model.fit(X, Y), lambda: clone(model), lambda: cross_val_score(model, X, Y)):
        with pytest.raises(ValueError, match=rf"^net must .*'{FROZEN}'; register it in the __init__ of the module"):
            act()
    assert not hasattr(model, "net_")
    assert hooked_parameter(net) == FROZEN
    assert same_weights(fitting(net=Plain()).fit(X, Y), fitting(net=Plain).fit(X, Y))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_a_copy_of_a_fitted_estimator_is_not_trained_further(copied):
    model = fitting(warm_start=True).fit(X, Y)
    other = copied(copied(model))
    assert (other.predict_proba(X) == model.predict_proba(X)).all()
    with pytest.raises(
        ValueError, match=rf"^net must not have .* a copy of it .*'{FROZEN}'; fit with warm_start=False"
    ):
        other.fit(X, Y)
    assert same_weights(other, model)
    assert same_weights(other.set_params(warm_start=False).fit(X, Y), model)
    plain = fitting(net=Plain, warm_start=True).fit(X, Y)
    assert same_weights(copied(plain).fit(X, Y), plain.fit(X, Y))


class Registers(Callback):
    def on_train_begin(self, net, **kwargs):
        net.module_.layers[0].weight.register_hook(freeze)


def test_a_hook_of_a_callback():
    model = fitting(net=Plain, callbacks=[Registers()]).fit(X, Y)
    assert same_weights(model, fitting().fit(X, Y))
    with pytest.raises(ValueError, match=r"^net must not have gradient hooks with the remedy SAM"):
        fitting(net=Plain, callbacks=[Registers()], remedies=[SAM()]).fit(X, Y)


def test_a_fit_in_memory_keeps_the_hook(tmp_path):
    first = fitting(memory=tmp_path).fit(X, Y)
    again = fitting(memory=tmp_path, warm_start=True).fit(X, Y)
    assert same_weights(first, again)
    again.fit(X, Y)
    assert float(moved(again)[:3].max()) == 0
