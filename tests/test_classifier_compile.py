"""``compile`` of the estimator: the fit of an uncompiled net, compiled where that can be done."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap import SAM, Adversarial, DynamicSampling, GrowingBatch, LBGapClassifier, Remedy, compare_regimes
from sklgap.experiments._protocol import as_saved
from sklgap.objective import CompileWarning
from tests.tiny import same_weights, small

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 16)).astype(np.float32)
Y = np.arange(60) % 3
EAGER = {"compile": True, "compile__backend": "eager"}
AOT = {"compile": True, "compile__backend": "aot_eager"}


class Dropped(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(16, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))


class Convolutions(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
        )


class Mlp(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


class Breaks(Mlp):
    def forward(self, x):
        torch._dynamo.graph_break()
        return super().forward(x)


def missing(graph, inputs):
    raise RuntimeError("no compiler was found")


def code(model):
    return list(model.net_.step_.loss_fn.compiled._code.values())


FITS = {
    "batch norm": {},
    "ghost batch norm": {"batch_size": 30, "ghost_batch_size": 10},
    "dropout": {"net": Dropped},
    "convolutions": {"net": Convolutions},
    "partial batch": {"batch_size": 25, "net": Mlp},
    "micro-batches": {"batch_size": 30, "micro_batch_size": 10, "net": Mlp},
    "proximal": {"proximal_lambda": 1e-2, "proximal_steps": 2},
    "sharpness-aware": {"remedies": [SAM(rho=0.1)]},
    "class weights": {"class_weight": "balanced"},
    "SGD": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, convolutions": {"precision": "bfloat16", "net": Convolutions},
}


@pytest.mark.parametrize("case", FITS)
def test_a_compiled_fit_is_that_of_the_net(case):
    plain = small(**FITS[case]).fit(X, Y)
    compiled = small(**FITS[case], **EAGER).fit(X, Y)
    assert code(compiled)
    assert all(code(compiled))
    assert same_weights(plain, compiled)
    assert np.array_equal(plain.predict_proba(X), compiled.predict_proba(X))
    assert plain.history_[:, "train_loss"] == compiled.history_[:, "train_loss"]


@pytest.mark.parametrize("case", ["batch norm", "dropout", "convolutions"])
def test_forward_and_backward_pass_as_one_graph_each(case):
    plain, compiled = small(**FITS[case]).fit(X, Y), small(**FITS[case], **AOT).fit(X, Y)
    assert all(code(compiled))
    np.testing.assert_allclose(compiled.history_[:, "train_loss"], plain.history_[:, "train_loss"], rtol=1e-5)


def test_only_batches_of_the_size_of_the_regime_are_compiled():
    model = small(batch_size=25, max_epochs=3, net=Mlp, **EAGER).fit(X, Y)
    assert len(code(model)) == 1
    model = small(batch_size=25, net=Mlp, **EAGER, compile__dynamic=True).fit(X, Y)
    assert len(code(model)) == 1
    assert same_weights(model, small(batch_size=25, net=Mlp).fit(X, Y))


def test_a_growing_batch():
    grows = {"batch_regime": GrowingBatch(10, factor=2, every=1, largest=1.0), "net": Mlp}
    model = small(**grows, max_epochs=3, **EAGER).fit(X, Y)
    assert len(code(model)) == 3
    assert same_weights(model, small(**grows, max_epochs=3).fit(X, Y))


# -- what cannot be compiled -------------------------------------------------------------------------------------------

FALLBACKS = {
    "no compiler": ({"compile__backend": missing}, "RuntimeError: no compiler was found"),
    "not as a whole": ({"net": Breaks, "compile__backend": "eager"}, "Unsupported"),
    "no such compiler": ({"net": Mlp, "compile__backend": "gcc"}, "InvalidBackend"),
}


@pytest.mark.parametrize("case", FALLBACKS)
def test_a_net_that_cannot_be_compiled_is_trained_as_it_is(case):
    given, sentence = FALLBACKS[case]
    with pytest.warns(
        CompileWarning, match=f"compile: the net is evaluated without torch.compile, because .*{sentence}"
    ):
        model = small(compile=True, **given).fit(X, Y)
    assert same_weights(model, small(**{k: v for k, v in given.items() if k == "net"}).fit(X, Y))


@pytest.mark.parametrize(
    "regime",
    [GrowingBatch(8, factor=1.2, every=1, largest=1.0), DynamicSampling(initial=8)],
    ids=["many sizes", "unknown sizes"],
)
def test_regimes_of_many_sizes(regime):
    given = {"batch_regime": regime, "net": Mlp, "max_epochs": 8}
    with pytest.warns(CompileWarning, match="compile__dynamic=True compiles one code for all"):
        model = small(**given, **EAGER).fit(X, Y)
    assert not code(model)
    assert same_weights(model, small(**given).fit(X, Y))


class GradientPenalty(Remedy):
    """Differentiates the loss itself, which compiled code does not allow."""

    def transform_loss(self, loss_fn, state):
        def penalised(params, buffers, batch):
            loss, aux = loss_fn(params, buffers, batch)
            gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            return loss + 0.01 * sum(g.square().sum() for g in gradients), aux

        return penalised


@pytest.mark.parametrize("given", [{}, {"compile__dynamic": True}])
def test_a_remedy_that_differentiates_the_loss(given):
    remedies = {"remedies": [GradientPenalty()], "net": Mlp}
    with pytest.warns(CompileWarning, match="GradientPenalty transforms the loss.*compiles = True"):
        model = small(**remedies, **AOT, **given).fit(X, Y)
    assert same_weights(model, small(**remedies).fit(X, Y))


def test_a_remedy_that_says_that_it_only_evaluates_the_loss():
    class Doubled(Remedy):
        compiles = True

        def transform_loss(self, loss_fn, state):
            return lambda *given: (2 * loss_fn(*given)[0], loss_fn(*given)[1])

    compiled, plain = (small(remedies=[Doubled()], net=Mlp, **options).fit(X, Y) for options in (AOT, {}))
    assert all(code(compiled))
    np.testing.assert_allclose(compiled.history_[:, "train_loss"], plain.history_[:, "train_loss"], rtol=1e-5)


def test_hooks_of_a_callback_are_called():
    from skorch.callbacks import Callback

    class Hooks(Callback):
        def on_train_begin(self, net, **kwargs):
            self.seen = 0
            net.module_[0].register_forward_hook(self.count)

        def count(self, *_):
            self.seen += 1

    with pytest.warns(CompileWarning, match="the net has hooks"):
        model = small(net=Mlp, callbacks=[("hooks", Hooks())], batch_size=30, **EAGER).fit(X, Y)
    assert dict(model.net_.callbacks_)["hooks"].seen >= 4


# -- scikit-learn's manners --------------------------------------------------------------------------------------------


def test_parameters():
    model = small(**EAGER)
    assert model.get_params()["compile__backend"] == "eager"
    assert clone(model).get_params() == model.get_params()
    model.set_params(compile__backend="aot_eager", compile=False)
    assert clone(model).compile__backend == "aot_eager"
    assert model.fit(X, Y).net_.step_.loss_fn.compiled is None


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"compile": "yes"}, ValueError, "compile must be True or False"),
        ({"compile": {"backend": "eager"}}, ValueError, "True or False; got .*\\. Give options as compile__backend"),
        ({"compile__fullgraph": "yes"}, ValueError, "compile__fullgraph must be True or False"),
        (
            {"compile__backnd": "eager"},
            TypeError,
            "compile__backnd is not an argument of torch.compile, .*did you mean 'backend'",
        ),
        ({"compile__model": None}, TypeError, "compile__model is not an argument"),
        ({"compile": True, "compile__mode": "default", "compile__options": {"a": 1}}, ValueError, "got both"),
    ],
)
def test_bad_parameters(given, error, sentence):
    with pytest.raises(error, match=sentence):
        small(**given).fit(X, Y)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_fitted_estimator(copied):
    model = small(**EAGER, warm_start=True).fit(X, Y)
    other = copied(model)
    assert same_weights(model, other)
    assert code(model)
    assert np.array_equal(model.predict_proba(X), other.predict_proba(X))
    assert same_weights(model.fit(X, Y), other.fit(X, Y))


def test_a_warm_start_may_begin_and_end_compiling():
    model, plain = small(warm_start=True), small(warm_start=True)
    for compiled in (False, True, False):
        model.set_params(compile=compiled, compile__backend="eager").fit(X, Y)
        assert (model.net_.step_.loss_fn.compiled is not None) == compiled
        assert same_weights(model, plain.fit(X, Y))


def test_the_module_of_the_user_is_left_alone():
    module = Mlp()
    before = copy.deepcopy(module.state_dict())
    model = small(net=module, **EAGER).fit(X, Y)
    assert module._compiled_call_impl is None
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert type(model.module_) is Mlp
    assert list(model.module_.state_dict()) == list(before)
    wrapped = small(net=torch.compile(copy.deepcopy(module), backend="eager"), **EAGER).fit(X, Y)
    assert type(wrapped.module_) is Mlp
    assert same_weights(wrapped, model)


def test_fits_in_threads_at_once():
    fitted = {}

    def fit(case):
        fitted[case] = small(**FITS[case], **EAGER).fit(X, Y)

    threads = [threading.Thread(target=fit, args=(case,)) for case in ("batch norm", "convolutions", "SGD")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for case, model in fitted.items():
        assert all(code(model))
        assert same_weights(model, small(**FITS[case]).fit(X, Y))
    assert len(fitted) == 3


def test_a_pipeline():
    compiled = make_pipeline(StandardScaler(), small(**EAGER)).fit(X, Y)
    assert same_weights(compiled[-1], make_pipeline(StandardScaler(), small()).fit(X, Y)[-1])


# -- saved work: whether a net is compiled does not decide what a trial is ---------------------------------------------


@pytest.mark.parametrize("first", [{}, EAGER])
@pytest.mark.parametrize("second", [{}, AOT])
def test_a_saved_fit_is_found_compiled_or_not(tmp_path, first, second):
    saved = small(memory=tmp_path, max_epochs=3, **first).fit(X, Y)
    loaded = small(memory=tmp_path, max_epochs=3, **second).fit(X, Y)
    assert same_weights(saved, loaded)
    assert saved.history_[:, "dur"] == loaded.history_[:, "dur"]


def test_a_saved_trial_is_found_compiled_or_not():
    plain, compiled = as_saved(small(), {}), as_saved(small(**AOT, compile__mode="default"), {"verbose": 0})
    assert plain.get_params() == compiled.get_params()
    pipeline = as_saved(make_pipeline(StandardScaler(), small(**AOT)), {})
    assert pipeline[-1].get_params() == plain.get_params()


def test_an_experiment_with_compiled_nets(tmp_path):
    arguments = {"n_trials": 2, "random_state": 0, "memory": tmp_path}
    plain = compare_regimes(small(), X, Y, X, Y, **arguments)
    compiled = compare_regimes(small(**EAGER), X, Y, X, Y, **arguments)
    assert plain.to_frame().equals(compiled.to_frame())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["batch norm", "dropout", "convolutions", "ghost batch norm"])
def test_inductor(case):
    given = {**FITS[case], "optimizer": torch.optim.SGD, "lr": 0.01, "max_epochs": 3}
    plain, compiled, again = (small(**given, compile=on).fit(X, Y) for on in (False, True, True))
    assert all(code(compiled))
    assert same_weights(compiled, again)
    # Dropout draws the same numbers: else the weights would differ in their first digits.
    for own, other in zip(plain.module_.parameters(), compiled.module_.parameters(), strict=True):
        torch.testing.assert_close(other, own, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_inductor_in_bfloat16():
    given = {**FITS["bfloat16"], "optimizer": torch.optim.SGD, "lr": 0.01, "max_epochs": 3}
    plain, compiled = (small(**given, compile=on).fit(X, Y) for on in (False, True))
    assert all(code(compiled))
    # The compiler leaves out roundings between operations: 8 bits are left of each.
    for own, other in zip(plain.module_.parameters(), compiled.module_.parameters(), strict=True):
        torch.testing.assert_close(other, own, rtol=2**-6, atol=2**-8)


def test_nothing_is_compiled_unless_it_is_asked_for():
    assert LBGapClassifier().compile is False
    assert small().fit(X, Y).net_.step_.loss_fn.compiled is None


@pytest.mark.parametrize("more", [{}, {"micro_batch_size": 7}, {"remedies": [Adversarial(), SAM()]}])
def test_adversarial_training_takes_gradients_of_the_rows_of_the_module_itself(more):
    def fitted(**kwargs):
        given = {"remedies": [Adversarial()], **more, **kwargs}
        return small(net=Mlp, batch_size=20, **given).fit(X, Y)

    with pytest.warns(CompileWarning, match="a remedy takes gradients with respect to the inputs"):
        model = fitted(**AOT)
    assert model.train_loss_ == pytest.approx(fitted().train_loss_, rel=1e-5)
