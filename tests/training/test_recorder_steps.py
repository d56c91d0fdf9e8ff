"""Nets of skorch whose batches are not their updates: the recorder counts the steps of the optimiser."""

import pickle

import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, LRScheduler
from skorch.hf import AccelerateMixin
from torch import nn

from sklgap import TrainingRecorder
from sklgap.inspection import recorded
from tests.tiny import Mlp
from tests.training.recordings import X, Y

LABELS = Y.astype("int64")


class CountingSGD(torch.optim.SGD):
    """Counts its steps, and calls the step of its base class, which runs torch's hooks a second time."""

    n_steps = 0

    def step(self, closure=None):
        CountingSGD.n_steps += 1
        return super().step(closure)


class Accumulating(NeuralNetClassifier):
    """The net of skorch's FAQ, which updates after every second batch."""

    def get_loss(self, *args, **kwargs):
        return super().get_loss(*args, **kwargs) / 2

    def train_step(self, batch, **fit_params):
        step = self.train_step_single(batch, **fit_params)
        if len(self.history[-1, "batches"]) % 2 == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


class Twice(NeuralNetClassifier):
    """Makes two updates on every batch."""

    def train_step(self, batch, **fit_params):
        super().train_step(batch, **fit_params)
        return super().train_step(batch, **fit_params)


class WithTwo(NeuralNetClassifier):
    """Has two optimisers, which take turns in every batch."""

    def initialize_optimizer(self, *args, **kwargs):
        super().initialize_optimizer(*args, **kwargs)
        self.optimizer2_ = torch.optim.SGD(self.module_.parameters(), lr=0.01)
        return self


class Accelerated(AccelerateMixin, NeuralNetClassifier):
    """Accumulates as Hugging Face's accelerate does."""


class ReplacingTheOptimizer(Callback):
    """Replaces the optimiser after the first epoch."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 1:
            net.initialize_optimizer()


def fitted(kind=NeuralNetClassifier, callbacks=(), at_updates=None, **kwargs):
    """Fit 4 batches of 15 samples in each of two epochs."""
    recorder = TrainingRecorder(every=1, at_updates=at_updates)
    options = {"optimizer": CountingSGD, "lr": 0.05, "batch_size": 15, "max_epochs": 2, "verbose": 0, **kwargs}
    CountingSGD.n_steps = 0
    return kind(
        Mlp, criterion=nn.CrossEntropyLoss, train_split=None, callbacks=[("recorder", recorder), *callbacks], **options
    ).fit(X, LABELS)


KINDS = {
    "plain": ({}, [4, 8]),
    "accumulating": ({"kind": Accumulating}, [2, 4]),
    "two updates on a batch": ({"kind": Twice}, [8, 16]),
    "LBFGS": ({"optimizer": torch.optim.LBFGS, "optimizer__max_iter": 3}, [4, 8]),
    "two optimisers": ({"kind": WithTwo}, [4, 8]),
    "a schedule for every batch": (
        {"callbacks": [("rate", LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=3, step_every="batch"))]},
        [4, 8],
    ),
    "another optimiser": ({"callbacks": [("other", ReplacingTheOptimizer())]}, [4, 8]),
}


@pytest.mark.parametrize(("options", "n_updates"), KINDS.values(), ids=KINDS)
def test_updates_are_the_steps_of_the_optimiser(options, n_updates):
    net = fitted(**options)
    assert recorded(net)["n_updates"].tolist() == n_updates
    if "optimizer" not in options:
        assert CountingSGD.n_steps == n_updates[-1]


def test_updates_that_are_asked_for():
    net = fitted(Accumulating, at_updates=[0, 1, 3])
    columns = recorded(net)
    assert columns["n_updates"].tolist() == [0, 1, 2, 3, 4]
    assert columns["epoch"].tolist() == [0, 0.5, 1, 1.5, 2]
    net.partial_fit(X, LABELS)
    assert recorded(net)["n_updates"].tolist() == [0, 1, 2, 3, 4, 6, 8]


def test_accumulation_of_accelerate():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    net = fitted(Accelerated, accelerator=accelerator)
    assert recorded(net)["n_updates"].tolist() == [2, 4]
    assert CountingSGD.n_steps == 4


class Failing(Callback):
    """Fails in the second epoch, unless ``fails`` is False."""

    fails = True

    def on_epoch_begin(self, net, **kwargs):
        if self.fails and len(net.history) == 2:
            raise RuntimeError


def hooks_of(net):
    return [*net.optimizer_._optimizer_step_pre_hooks, *net.optimizer_._optimizer_step_post_hooks]


def test_no_hook_stays_and_the_net_is_pickled():
    net = fitted(Accumulating)
    assert hooks_of(net) == []
    assert recorded(pickle.loads(pickle.dumps(net)))["n_updates"].tolist() == [2, 4]


def test_a_fit_that_failed_does_not_count_twice():
    failing = Failing()
    recorder = TrainingRecorder(every=1)
    net = NeuralNetClassifier(
        Mlp, criterion=nn.CrossEntropyLoss, train_split=None, callbacks=[("recorder", recorder), ("failing", failing)],
        batch_size=15, max_epochs=2, verbose=0,
    )  # fmt: skip
    with pytest.raises(RuntimeError):
        net.fit(X, LABELS)
    failing.fails = False
    net.partial_fit(X, LABELS, epochs=1)
    assert recorded(net)["n_updates"].tolist() == [4, 8]
    assert hooks_of(net) == []


class WithAList(NeuralNetClassifier):
    """Has its optimisers in a list."""

    def initialize_optimizer(self, *args, **kwargs):
        super().initialize_optimizer(*args, **kwargs)
        self.optimizers_ = [self.optimizer_]
        del self.optimizer_
        return self

    def train_step(self, batch, **fit_params):
        step = self.train_step_single(batch, **fit_params)
        self.optimizers_[0].step()
        self.optimizers_[0].zero_grad()
        return step


class Hidden(WithAList):
    """Has its optimiser where nobody finds it."""

    def initialize_optimizer(self, *args, **kwargs):
        super().initialize_optimizer(*args, **kwargs)
        (hidden,) = self.optimizers_
        del self.optimizers_
        self.update = hidden.step
        return self

    def train_step(self, batch, **fit_params):
        step = self.train_step_single(batch, **fit_params)
        self.update()
        return step


class TwoSteps(torch.optim.Optimizer):
    """A common kind of SAM, whose second step is that of an optimiser inside."""

    def __init__(self, params, lr):
        self.base_optimizer = CountingSGD(list(params), lr=lr)
        super().__init__(self.base_optimizer.param_groups, {"lr": lr})

    @torch.no_grad()
    def first_step(self):
        for p in self.param_groups[0]["params"]:
            p += 0.01 * p.grad

    @torch.no_grad()
    def second_step(self):
        for p in self.param_groups[0]["params"]:
            p -= 0.01 * p.grad
        self.base_optimizer.step()
        self.base_optimizer.zero_grad()


class WithTwoSteps(NeuralNetClassifier):
    def train_step(self, batch, **fit_params):
        step = self.train_step_single(batch, **fit_params)
        self.optimizer_.first_step()
        self.optimizer_.second_step()
        return step


def test_an_optimiser_inside_another():
    assert recorded(fitted(WithTwoSteps, optimizer=TwoSteps))["n_updates"].tolist() == [4, 8]


class ByHand(NeuralNetClassifier):
    def train_step(self, batch, **fit_params):
        step = self.train_step_single(batch, **fit_params)
        with torch.no_grad():
            for p in self.module_.parameters():
                p -= 0.01 * p.grad
                p.grad = None
        return step


class Skipping(NeuralNetClassifier):
    """Makes no update, like a gradient scaler that skips them."""

    def train_step(self, batch, **fit_params):
        step = self.train_step_single(batch, **fit_params)
        self.optimizer_.zero_grad()
        return step


def test_updates_without_a_step_are_refused():
    with pytest.raises(ValueError, match=r"^net must make its updates by the step method .* ByHand made no such step"):
        fitted(ByHand)
    assert recorded(fitted(Skipping))["n_updates"].tolist() == [0]


def test_optimisers_in_a_list():
    assert recorded(fitted(WithAList))["n_updates"].tolist() == [4, 8]


def test_an_optimiser_that_cannot_be_found_is_refused():
    with pytest.raises(ValueError, match=r"^net must make its updates by the step method .* Hidden made no such step"):
        fitted(Hidden)
