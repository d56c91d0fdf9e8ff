"""Calls of everything public with one argument replaced by nonsense, and what may come of it."""

import functools
import inspect
import math
import numbers
import re
import types
import typing
import warnings

import numpy as np
import torch
from matplotlib import pyplot
from torch import nn

import sklgap
from sklgap import datasets, experiments, inspection, metrics, monitor, nets, objective, regimes, remedies, training
from tests.tiny import Mlp, blobs, images, small

X, Y = blobs(24)
IMAGES, IMAGE_LABELS = images(16, side=8)

# Values as thunks, since a generator can be read once. Huge integers stand apart: as a number of trials or epochs they
# are no nonsense but a long wait.
VALUES = {
    "None": lambda: None,
    "text": lambda: "nonsense",
    "empty text": lambda: "",
    "number as text": lambda: "1",
    "bytes": lambda: b"x",
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "NumPy nan": lambda: np.float64("nan"),
    "-1": lambda: -1,
    "0": lambda: 0,
    "-0.5": lambda: -0.5,
    "0.5": lambda: 0.5,
    "1e308": lambda: 1e308,
    "True": lambda: True,
    "NumPy bool": lambda: np.True_,
    "complex": lambda: 1 + 2j,
    "NumPy complex": lambda: np.complex64(1),
    "empty list": lambda: [],
    "empty tuple": lambda: (),
    "empty dict": lambda: {},
    "list": lambda: [0.5],
    "texts": lambda: ["a", "b"],
    "nested": lambda: [[1, [2]], 3],
    "set": lambda: {1, "a"},
    "dict": lambda: {"a": object()},
    "range": lambda: range(3),
    "generator": lambda: (i for i in range(3)),
    "object": object,
    "type": lambda: int,
    "function": lambda: len,
    "module": lambda: math,
    "no array": lambda: np.empty((0, 3)),
    "3-D array": lambda: np.zeros((2, 3, 4)),
    "object array": lambda: np.array([None, "a"], dtype=object),
    "text array": lambda: np.array(["a", "b"]),
    "dates": lambda: np.array(["2020-01-01"], dtype="datetime64[D]"),
    "0-D array": lambda: np.array(2.5),
    "nan array": lambda: np.array([[math.nan, 1.0]]),
    "bool tensor": lambda: torch.tensor([True]),
    "empty tensor": lambda: torch.empty(0),
    "complex tensor": lambda: torch.zeros(2, dtype=torch.complex64),
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
}
HUGE = {"2**31": lambda: 2**31, "10**12": lambda: 10**12, "10**30": lambda: 10**30, "-10**30": lambda: -(10**30)}
# Numbers of repetitions: a huge one is right, and takes for ever.
EFFORT = {
    *(
        "max_epochs",
        "n_epochs",
        "n_orders",
        "n_trials",
        "n_batches",
        "n_pairs",
        "n_draws",
        "n_copies",
        "n_products",
        "n_steps",
        "n_vectors",
        "n_restarts",
        "n_points",
    ),
    *("max_small_epochs", "large_epochs"),
    *("max_iter", "n_rows", "proximal_steps", "inner_steps", "n_layers", "n_blocks"),
}


class Call(typing.NamedTuple):
    """One public thing: how it is called, with which good arguments, and the signature that is varied."""

    run: typing.Callable[..., typing.Any]
    good: dict[str, typing.Any]
    signature: typing.Callable[..., typing.Any]


@functools.cache
def fitted():
    return small(max_epochs=1).fit(X, Y)


@functools.cache
def pair():
    torch.manual_seed(0)
    return Mlp(width=3), nn.CrossEntropyLoss()


def fit(**params):
    return small(**{"max_epochs": 1, **params}).fit(X, Y)


def with_remedy(kind):
    def run(**params):
        return small(max_epochs=1, input_shape=(1, 2, 2), remedies=[kind(**params)]).fit(X, Y)

    return run


def with_regime(kind):
    return lambda **params: small(max_epochs=1, batch_regime=kind(**params)).fit(X, Y)


def with_callback(kind):
    return lambda **params: small(max_epochs=1, callbacks=[("it", kind(**params))]).fit(X, Y)


def measured(function, **more):
    """A measurement of a fitted net on data."""
    return Call(function, {"estimator": fitted(), "X": X, "y": Y, **more}, function)


def plain(function, **good):
    return Call(function, good, function)


def _data(X, y):
    """Stand for the signature of what takes data."""


def _relu():
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))


def _nested(
    module__width,
    module__n_layers,
    criterion__weight,
    criterion__label_smoothing,
    criterion__reduction,
    criterion__ignore_index,
    optimizer__betas,
    optimizer__eps,
    optimizer__weight_decay,
    optimizer__amsgrad,
):
    """Stand for the signature of nested parameters of torch's classes."""


def calls():
    """Return all calls by name."""
    small_data = {"X": X, "y": Y}
    found = {
        "LBGapClassifier": Call(fit, {}, sklgap.LBGapClassifier),
        "LBGapClassifier.fit": Call(lambda X, y: small(max_epochs=1).fit(X, y), {"X": X, "y": Y}, _data),
        "LBGapClassifier.predict": Call(fitted().predict, {"X": X}, lambda X: None),
        "LBGapClassifier.score": Call(fitted().score, {"X": X, "y": Y}, _data),
        "nested": Call(fit, {}, _nested),
        "Objective": plain(objective.Objective, module=pair()[0], criterion=pair()[1], data=(X, Y)),
        "check_objective": measured(objective.check_objective),
        "random_subspace": plain(objective.random_subspace, origin=torch.zeros(7), dim=2),
        "sharpness": measured(inspection.sharpness, max_iter=1, subspace_dim=2),
        "adaptive_sharpness": measured(inspection.adaptive_sharpness, max_iter=1),
        "sharpness_score": measured(metrics.sharpness_score, subspace_dim=2),
        "neg_sharpness_scorer": measured(metrics.neg_sharpness_scorer),
        "generalization_gap_score": measured(metrics.generalization_gap_score),
        "neg_generalization_gap_scorer": measured(metrics.neg_generalization_gap_scorer),
        "gradient_noise_scale": measured(inspection.gradient_noise_scale, n_batches=4, batch_size=4),
        "gradient_standard_error": measured(inspection.gradient_standard_error, n_batches=4, batch_sizes=[2, 4]),
        "hessian_eigenvalues": measured(inspection.hessian_eigenvalues, k=1, max_iter=8),
        "hessian_spectral_density": measured(
            inspection.hessian_spectral_density, n_vectors=2, n_steps=3, n_points=5, width=0.1
        ),
        "average_sharpness": measured(inspection.average_sharpness, n_pairs=2),
        "ball_sharpness": measured(inspection.ball_sharpness, max_iter=1, n_products=1),
        "fisher_sharpness": measured(inspection.fisher_sharpness, max_iter=1, n_products=1, n_draws=2),
        "fisher_trace": measured(inspection.fisher_trace, n_draws=2),
        "flatness": measured(inspection.flatness, measures=["average_sharpness", "m_sharpness"]),
        "m_sharpness": measured(inspection.m_sharpness, m=12),
        "hessian_trace": measured(inspection.hessian_trace, n_products=6),
        "ritz_values": measured(inspection.ritz_values, subspace_dim=3),
        "loss_on_plane": measured(inspection.loss_on_plane, alphas=[0.0, 1.0], betas=[0.0, 1.0]),
        "weight_distance": plain(inspection.weight_distance, estimator=fitted()),
        "recorded": plain(inspection.recorded, estimator=fitted()),
        "rescale_layers": plain(inspection.rescale_layers, estimator=_relu(), factor=2.0),
        "fit_diffusion": plain(inspection.fit_diffusion, n_updates=range(1, 9), distances=np.log(np.arange(2.0, 10))),
        "TrainingRecorder": Call(with_callback(training.TrainingRecorder), {}, training.TrainingRecorder),
        "WeightAveraging": Call(with_callback(training.WeightAveraging), {}, training.WeightAveraging),
        "ExponentialAveraging": Call(with_callback(training.ExponentialAveraging), {}, training.ExponentialAveraging),
        "LatestAveraging": Call(with_callback(training.LatestAveraging), {}, training.LatestAveraging),
        "full_batch_recipe": plain(training.full_batch_recipe, max_epochs=10),
        "randomize_labels": plain(datasets.randomize_labels, y=Y),
        "load_timit": plain(datasets.load_timit, features="no such file", alignments="no such file"),
    }
    for name in ("loss_along_line", "loss_along_arc"):
        arguments = {"start": fitted(), "end": fitted(), **small_data, "alphas": [0.0, 1.0]}
        found[name] = Call(getattr(inspection, name), arguments, getattr(inspection, name))
    found["make_sharpness_scorer"] = Call(
        lambda **given: metrics.make_sharpness_scorer(**given), {}, metrics.sharpness_score
    )
    for name in ("fetch_mnist", "fetch_cifar10", "fetch_cifar100"):
        found[name] = plain(getattr(datasets, name), data_home="no such folder", download_if_missing=False)
    for name in (
        "make_image_classification",
        "make_mnist1d",
        "make_mnist_like",
        "make_cifar10_like",
        "make_timit_like",
    ):
        found[name] = plain(getattr(datasets, name), n_samples=4)
    for name in ("ConstantBatch", "DynamicSampling", "GrowingBatch", "SwitchBatch"):
        kind = getattr(regimes, name)
        found[name] = Call(with_regime(kind), {}, kind)
    for name in sorted(set(remedies.__all__) & {kind.__name__ for kind in remedies.Remedy.__subclasses__()}):
        kind = getattr(remedies, name)
        no_flip = {"Augmentation": {"flip": False}, "BatchAugmentation": {"augmentation": lambda X: X}}
        good = no_flip.get(name, {})
        found[name] = Call(with_remedy(kind), good, kind)
    for name in ("F1", "F2"):
        found[name] = plain(getattr(nets, name), n_features=4, n_classes=2, n_layers=1, width=3)
    for name in ("C1", "C3"):
        found[name] = plain(getattr(nets, name), input_shape=(1, 8, 8), n_classes=2, n_filters=2, hidden=(3, 3))
    for name in ("C2", "C4"):
        found[name] = plain(getattr(nets, name), input_shape=(1, 8, 8), n_classes=2, stacks=((2,),), hidden=2)
    found["ResNet44"] = plain(nets.ResNet44, input_shape=(1, 8, 8), n_classes=2, n_blocks=1, widths=(2, 2, 2))
    found["WRN16_4"] = plain(nets.WRN16_4, input_shape=(1, 8, 8), n_classes=2, n_blocks=1, widening=1, widths=(2, 2, 2))
    found["GhostBatchNorm"] = plain(nets.GhostBatchNorm, num_features=3)
    found["convert_to_ghost_batch_norm"] = plain(
        nets.convert_to_ghost_batch_norm, module=nn.Sequential(nn.BatchNorm1d(2)), ghost_batch_size=4
    )
    found["initialize_weights"] = plain(nets.initialize_weights, module=nn.Linear(2, 2))
    found["check_net"] = plain(nets.check_net, net="F1")
    found["check_batch_regime"] = plain(regimes.check_batch_regime, batch_regime="SB", n_samples=40)
    found["check_batch_size"] = plain(regimes.check_batch_size, batch_size=4, n_samples=40)
    found["check_lr_schedule"] = plain(
        regimes.check_lr_schedule, lr_scaling=None, lr_warmup_epochs=0, lr_milestones=(), lr_decay=0.1
    )
    found["default_base_batch_size"] = plain(regimes.default_base_batch_size, n_samples=40)
    found["growing_milestones"] = plain(regimes.growing_milestones, batch_size=4, milestones=[1])
    found["transfer_hyperparameters"] = plain(
        regimes.transfer_hyperparameters, hyperparameters={"lr": 0.1}, optimizer="Adam", batch_size=4, new_batch_size=8
    )
    found["BatchSizeSampler"] = plain(regimes.BatchSizeSampler, dataset=40, schedule=4)
    found["BatchSizeMonitor"] = plain(monitor.BatchSizeMonitor, module=nn.Linear(2, 2))
    module = nn.Linear(4, 3)
    found["StabilityMonitor"] = plain(
        monitor.StabilityMonitor,
        module=module,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        data=(torch.from_numpy(X), torch.from_numpy(Y)),
    )
    found["stability_threshold"] = plain(
        inspection.stability_threshold, optimizer=torch.optim.SGD(module.parameters(), lr=0.1), module=module
    )
    found["check_accumulation"] = plain(
        monitor.check_accumulation,
        train_step=backward_of_each,
        module=nn.Linear(2, 2),
        batch=(torch.ones(4, 2), torch.zeros(4, dtype=torch.long)),
        sizes=[2, 2],
    )
    found["lr_factor"] = plain(regimes.lr_factor, lr_scaling=None, batch_size=4, base_batch_size=2)
    found["n_batches"] = plain(regimes.n_batches, n_samples=40, batch_size=4)
    found["split_rows"] = plain(regimes.split_rows, n_rows=40, batch_size=4)
    found["updates_of_epochs"] = plain(regimes.updates_of_epochs, n_epochs=2, batch_size=4, n_samples=40)
    found["check_remedies"] = plain(remedies.check_remedies, remedies=())
    found["plan_epoch"] = plain(training.plan_epoch, n_rows=40, batch_size=4, seed=0, epoch=0)
    return found | small_experiments() | displays()


def backward_of_each(module, micro_batches):
    for inputs, target in micro_batches:
        (nn.functional.cross_entropy(module(inputs), target) / len(micro_batches)).backward()


def small_experiments():
    """Return the calls of the experiments by name, as small as they can be."""
    quick = {"estimator": small(max_epochs=1), "X": X, "y": Y, "n_trials": 1, "random_state": 0, "verbose": 0}
    tested = {**quick, "X_test": X, "y_test": Y, "epsilon": []}
    found = {
        "compare_regimes": tested,
        "batch_size_curve": {**tested, "batch_sizes": [4, 8], "validation_fraction": 0.25},
        "explain_gap": {**tested, "small": 8, "large": 16, "causes": ("learning rate",)},
        "warm_start_curve": {**tested, "max_small_epochs": 1},
        "minima_census": {**tested, "n_trials": 1, "epsilon": 1e-3, "inits": ("torch",), "max_samples": 4},
        "sharpness_trajectory": {**quick, "every": 1, "at_updates": None, "max_samples": 4, "solver": "power"},
        "stability_trajectory": {
            **{**quick, "estimator": small(max_epochs=1, optimizer=torch.optim.SGD)},
            **{"every": 1, "at_updates": None, "max_samples": 8},
        },
        "critical_batch_size": {**quick, "n_batches": 4},
        "branched_critical_batch_size": {
            **{name: value for name, value in quick.items() if name != "n_trials"},
            **{"X_valid": X, "y_valid": Y, "checkpoints": [1], "batch_sizes": [20], "n_orders": 1, "n_batches": 4},
        },
        "steps_to_loss": {**quick, "batch_sizes": [8, 16], "target_loss": 0.5},
        "largest_safe_batch_size": {"curve": curve(), "margin": 0.5},
        "batch_size_limits": {"safe": experiments.largest_safe_batch_size(curve(), 0.5), "fits": 64, "useful": 100.0},
        "gap_report": {"search": cross_validated(), "scoring": "accuracy"},
        "time_to_accuracy": {"models": {"one": fitted().history_}, "target": 0.5, "quantity": "train_accuracy"},
        "fit_steps_to_loss": {"batch_sizes": [10, 100, 1000], "n_steps": [1050, 150, 60]},
        "parallel_model": {"batch_sizes": [10, 100], "n_updates": [1050, 150]},
        "overhead_efficiency": {"overhead": 2.0},
        "rank_measures": {"census": minima(), "measures": ["flat"], "n_resamples": 20},
    }
    return {name: plain(getattr(experiments, name), **good) for name, good in found.items()}


def minima():
    """Records of two settings and two trials."""
    return [
        {"trial": i // 2, "regime": i % 2, "flat": float(i), "test_accuracy": 1 / (1 + i), "train_accuracy": 1.0}
        for i in range(4)
    ]


@functools.cache
def curve():
    """A curve of two sizes and two trials."""
    return experiments.batch_size_curve(
        small(max_epochs=1),
        X,
        Y,
        X,
        Y,
        batch_sizes=[4, 8],
        n_trials=2,
        validation_fraction=0.5,
        epsilon=[],
        random_state=0,
        verbose=0,
    )


def cross_validated():
    folds = np.array([0.5, 0.75])
    return {"fit_time": folds, "score_time": folds, "train_accuracy": folds, "test_accuracy": folds}


@functools.cache
def results():
    """One result of each experiment that a display draws."""
    runs = small_experiments()
    names = ["compare_regimes", "gap_report", "minima_census", "parallel_model", "time_to_accuracy", "warm_start_curve"]
    names += [
        "branched_critical_batch_size",
        "critical_batch_size",
        "explain_gap",
        "fit_steps_to_loss",
        "rank_measures",
    ]
    return {name: runs[name].run(**runs[name].good) for name in names} | {"batch_size_curve": curve()}


def displays():
    """Return the calls of the displays by name."""
    stability = {"eigenvalue": 1.0, "threshold": 2.0}
    recorder = training.TrainingRecorder(
        {"train": (X, Y)},
        {"sharpness": lambda net: 1.0, "stability": lambda net: stability},
        every=None,
        at_updates=range(4),
    )
    recorded = small(max_epochs=3, batch_size=8, callbacks=[("it", recorder)]).fit(X, Y)
    model, data = {"estimator": fitted()}, {"X": X, "y": Y}
    of_recorded = {"estimators": {"one": recorded}}
    spectrum = {**data, "n_vectors": 1, "n_steps": 3, "n_points": 5, "width": 0.1}
    plane = {"alphas": [0.0, 1.0], "betas": [0.0, 1.0], "random_state": 0}
    result = results()
    makers = {
        inspection.LearningCurvesDisplay: ("from_estimators", {**of_recorded, "datasets": ("train",)}),
        inspection.ParametricPlotDisplay: (
            "from_estimators",
            {"start": fitted(), "end": fitted(), **data, "X_test": X, "y_test": Y, "alphas": [0.0, 1.0]},
        ),
        inspection.SharpnessTrajectoryDisplay: ("from_estimators", of_recorded),
        inspection.StabilityTrajectoryDisplay: ("from_estimators", of_recorded),
        inspection.SpectrumDisplay: ("from_estimators", {"estimators": {"one": fitted()}, **spectrum, "k": None}),
        inspection.LossSurfaceDisplay: ("from_estimator", {**model, **data, **plane}),
        inspection.WeightDistanceDisplay: ("from_estimators", of_recorded),
        experiments.BatchSizeCurveDisplay: ("from_curve", {"curve": curve()}),
        experiments.GapExplanationDisplay: ("from_explanation", {"explanation": result["explain_gap"]}),
        experiments.GapReportDisplay: ("from_report", {"report": result["gap_report"]}),
        experiments.MeasureRankingDisplay: ("from_ranking", {"ranking": result["rank_measures"]}),
        experiments.MinimaCensusDisplay: ("from_census", {"census": result["minima_census"]}),
        experiments.ParallelModelDisplay: ("from_model", {"model": result["parallel_model"]}),
        experiments.RegimeComparisonDisplay: ("from_comparison", {"comparison": result["compare_regimes"]}),
        experiments.TimeToAccuracyDisplay: ("from_times", {"times": result["time_to_accuracy"], "cost": "epochs"}),
        experiments.BranchedCriticalBatchSizeDisplay: (
            "from_result",
            {"result": result["branched_critical_batch_size"]},
        ),
        experiments.CriticalBatchSizeDisplay: ("from_result", {"result": result["critical_batch_size"]}),
        experiments.StepsToLossDisplay: ("from_result", {"result": result["fit_steps_to_loss"]}),
        experiments.WarmStartDisplay: ("from_curve", {"curve": result["warm_start_curve"]}),
    }
    found = {}
    for kind, (maker, good) in makers.items():
        made = getattr(kind, maker)
        found[f"{kind.__name__}.{maker}"] = Call(drawn(made), good, made)
        display = made(**good)
        found[f"{kind.__name__}.plot"] = Call(drawn(display.plot), {}, display.plot)
    made = inspection.SpectrumDisplay.from_estimator
    found["SpectrumDisplay.from_estimator"] = Call(drawn(made), {**model, **spectrum, "k": None}, made)
    pyplot.close("all")
    return found


def drawn(function):
    def run(**params):
        try:
            function(**params)
        finally:
            pyplot.close("all")

    return run


# Where the error calls an argument by another name that the user knows it by.
ALSO = {
    "data": ("X", "y"),
    "loss": ("criterion",),
    "dim": ("subspace_dim",),
    "inner_steps": ("proximal_steps",),
    "kind": ("subspace",),
    "models": ("estimator",),
    "estimators": ("estimator",),
    "regimes": ("batch_regime",),
    "inits": ("init",),
    "overhead": ("efficiency",),
}
# Arguments that are no parameter of the user, or whose good values do something else: a folder, a download.
LEFT_OUT = {("check_batch_size", "name"), ("LBGapClassifier", "memory")}
LEFT_OUT |= {(name, "download_if_missing") for name in ("fetch_mnist", "fetch_cifar10", "fetch_cifar100")}
# The user's own functions and objects are named by what holds them where they cannot be copied.
HOLDERS = ("batch_regime", "remedies", "callbacks")


def arguments(call):
    """Return the names of the arguments that may be nonsense."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [p.name for p in inspect.signature(call.signature).parameters.values() if p.kind not in kinds]


def nonsense(of=None):
    """Yield (name of the call, call, argument, name of the value, value as a thunk); None: of all calls."""
    for name, call in (calls() if of is None else of).items():
        for argument in arguments(call):
            if (name, argument) in LEFT_OUT:
                continue
            huge = {} if argument.split("__")[-1] in EFFORT else HUGE
            for value in (*VALUES, *huge):
                if argument == "n_jobs" and value in ("-1", *HUGE):  # allowed: they start processes
                    continue
                yield name, call, argument, value, {**VALUES, **huge}[value]


def annotation_allows(call, argument, value):
    """Say whether a value that was taken is of a kind that the annotation names; True where it names none."""
    kinds = inspect.signature(call.signature).parameters[argument].annotation
    kinds = typing.get_args(kinds) if isinstance(kinds, types.UnionType) else (kinds,)
    plain_kinds = {bool: (bool, np.bool_), int: numbers.Integral, float: numbers.Real, str: str, type(None): type(None)}
    if not all(kind in plain_kinds for kind in kinds):
        return True
    if value is None:
        return type(None) in kinds
    flag = isinstance(value, bool | np.bool_)
    if flag or bool in kinds:
        return flag and (bool in kinds or argument == "verbose")
    number = isinstance(value, float | np.floating) and math.isnan(value)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    return not number and any(isinstance(value, plain_kinds[kind]) for kind in kinds)


def verdict(call, argument, thunk):
    """Call with nonsense; return None, or what is wrong about what came of it."""
    value = thunk()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call.run(**{**call.good, argument: value})
        except (ValueError, TypeError) as error:
            names = (argument, *ALSO.get(argument, ()), *(HOLDERS if "copied" in str(error) else ()))
            named = any(re.search(rf"\b{re.escape(name)}\b", str(error)) for name in names)
            return None if named else f"not named: {type(error).__name__}: {error}"
        except OSError as error:  # documented for files that are not there
            return None if {"data_home", "features"} & call.good.keys() else f"crashed: {error!r}"
        except Exception as error:
            return f"crashed: {type(error).__name__}: {error}"
    return None if annotation_allows(call, argument, value) else "taken, though its annotation says otherwise"
