"""The public names of the package: the one place where each has its page, and the question that it answers."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from typing import Any

import sklgap

# In the order of the reference; a sub-package that is not named here comes after them.
ORDER = ["experiments", "inspection", "metrics", "objective", "regimes", "monitor", "remedies", "nets", "training"]
ORDER += ["datasets"]

# The functions and classes by the question that they answer. A name stands where it is looked for first; displays and
# what functions return are listed apart. A public name that is not here is listed under the question of its package.
QUESTIONS: dict[str, list[str]] = {
    "How do I train with a batch size, or with a schedule of them?": [
        *("LBGapClassifier", "BatchRegime", "ConstantBatch", "SwitchBatch", "GrowingBatch", "DynamicSampling"),
        *("LRSchedule", "default_base_batch_size", "lr_factor", "n_batches", "updates_of_epochs", "TrainingRecorder"),
        *("recorded",),
    ],
    "How large may the batch be before accuracy drops?": [
        *("batch_size_curve", "largest_safe_batch_size", "batch_size_limits", "compare_regimes", "gap_report"),
        "generalization_gap_score",
        "neg_generalization_gap_scorer",
    ],
    "Which batch size is useful for speed?": [
        *("critical_batch_size", "branched_critical_batch_size", "steps_to_loss", "fit_steps_to_loss"),
        *("time_to_accuracy", "parallel_model", "overhead_efficiency"),
        *("gradient_noise_scale", "gradient_standard_error"),
    ],
    "My training loop is my own: what can I measure in it?": [
        *("BatchSizeMonitor", "StabilityMonitor", "check_accumulation", "BatchSizeSampler", "growing_milestones"),
        "transfer_hyperparameters",
    ],
    "Why is the large batch worse?": [
        *("explain_gap", "sharpness_trajectory", "minima_census", "weight_distance", "fit_diffusion"),
        *("loss_along_line", "loss_along_arc", "loss_on_plane"),
    ],
    "How sharp or how flat is my model?": [
        *("sharpness", "sharpness_score", "make_sharpness_scorer", "neg_sharpness_scorer", "flatness", "rank_measures"),
        *("adaptive_sharpness", "average_sharpness", "ball_sharpness", "m_sharpness", "fisher_sharpness"),
        *("fisher_trace", "rescale_layers"),
    ],
    "How curved is the loss, and is the training stable?": [
        *("hessian_eigenvalues", "hessian_trace", "hessian_spectral_density", "ritz_values"),
        *("stability_trajectory", "stability_threshold", "StabilityMeasurement"),
    ],
    "What wins the accuracy back?": [
        *("warm_start_curve", "full_batch_recipe", "Augmentation", "BatchAugmentation", "Proximal", "SAM"),
        *("GradientPenalty", "SampleNoise", "EntropySGD", "Adversarial", "Stability", "LabelSmoothing", "Mixup"),
        *("WeightAveraging", "LatestAveraging", "ExponentialAveraging"),
        *("GhostBatchNorm", "convert_to_ghost_batch_norm"),
    ],
    "Which nets and which data are there?": [
        *("F1", "F2", "C1", "C2", "C3", "C4", "ResNet44", "WRN16_4", "NETS", "FullyConnected", "ShallowConv"),
        *("DeepConv", "ResNet", "WideResNet", "initialize_weights", "fetch_mnist", "fetch_cifar10", "fetch_cifar100"),
        *("load_timit", "make_mnist1d", "make_mnist_like", "make_cifar10_like", "make_timit_like"),
        *("make_image_classification", "randomize_labels"),
    ],
    "How do I measure a loss or a subspace of my own?": [
        *("Objective", "check_objective", "RestrictedObjective", "Subspace", "random_subspace", "Measurement"),
        "CompileWarning",
    ],
    "How do I find and remove saved work?": ["saved_work", "prune"],
    "How do I write a part of my own?": [
        *("Remedy", "compose", "accumulate", "TrainStep", "TrainingNet", "ResidentLoader", "HostLoader", "plan_epoch"),
        *("split_rows", "check_batch_regime", "check_batch_size", "check_lr_scaling", "check_lr_schedule"),
        *("check_remedies", "check_together", "check_augmentation", "check_net"),
    ],
}
# Of a name that no question has.
QUESTION_OF_PACKAGE = {
    "sklgap.experiments": "How large may the batch be before accuracy drops?",
    "sklgap.inspection": "How sharp or how flat is my model?",
    "sklgap.metrics": "How sharp or how flat is my model?",
    "sklgap.monitor": "My training loop is my own: what can I measure in it?",
    "sklgap.remedies": "What wins the accuracy back?",
    "sklgap.nets": "Which nets and which data are there?",
    "sklgap.datasets": "Which nets and which data are there?",
    "sklgap.regimes": "How do I train with a batch size, or with a schedule of them?",
    "sklgap.memory": "How do I find and remove saved work?",
}


def questions() -> dict[str, list[str]]:
    """Return every public name but displays and records, with its package, by the question that it answers."""
    apart, left = {*displays(), *records()}, dict(places())
    found = {question: [f"{left.pop(name)}.{name}" for name in names] for question, names in QUESTIONS.items()}
    for name, package in left.items():
        if name not in apart:
            found[QUESTION_OF_PACKAGE.get(package, next(reversed(QUESTIONS)))].append(f"{package}.{name}")
    return found


def displays() -> list[str]:
    """Return the names of the classes that draw."""
    return [name for name in places() if name.endswith("Display")]


def records() -> dict[str, list[str]]:
    """Return the classes of what functions return, each with the functions, methods and fields that have it."""
    found: dict[str, list[str]] = {
        name: [] for name, package in places().items() if _is_record(value_of(package, name))
    }

    def add(path: str, types: str) -> None:
        for word in set(re.findall(r"[A-Z]\w+", types)) - {path.partition(".")[0]}:
            if word in found and path not in found[word]:
                found[word].append(path)

    seen = set()
    for name, package in places().items():
        for path, function in _functions(package, name):
            if function not in seen:  # an inherited method stands with the first class that has it
                seen.add(function)
                add(path, str(inspect.signature(function).return_annotation))
    for name in found:
        for field, types in fields(name).items():
            add(f"{name}.{field}", types)
    return found


def fields(name: str) -> dict[str, str]:
    """Return the fields of a record, in their order, each with its type as the docstring states it."""
    thing = value_of(places()[name], name)
    doc = inspect.getdoc(thing) or ""
    section = re.search(r"^Attributes\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)", doc, flags=re.MULTILINE | re.DOTALL)
    if section is None:
        return dict.fromkeys(getattr(thing, "_fields", ()), "")
    heads = re.findall(r"^(\w[\w, ]*)(?: : (.*))?$", section[1], flags=re.MULTILINE)
    return {field.strip(): types for names, types in heads for field in names.split(",")}


def _is_record(thing: Any) -> bool:
    """Say whether a class holds what a function returns: a result, a dataclass or a named tuple."""
    if not isinstance(thing, type) or thing.__name__.endswith("Display") or thing.__name__ in _INPUTS:
        return False
    is_result = any(base.__name__ == "Result" for base in thing.__mro__)
    return is_result or dataclasses.is_dataclass(thing) or hasattr(thing, "_fields") or thing.__name__ in _RECORDS


# What functions return without being one of these.
_RECORDS = {"FlatnessTable"}
# Dataclasses that a user makes.
_INPUTS = {"Measurement", "LRSchedule"}


def _functions(package: str, name: str) -> list[tuple[str, Any]]:
    """Return the function, or the public methods of the class, each with the name that a reader finds it by."""
    thing = value_of(package, name)
    if inspect.isfunction(thing):
        return [(name, inspect.unwrap(thing))]
    if not isinstance(thing, type):
        return []
    methods = inspect.getmembers(thing, inspect.isfunction)
    return [(f"{name}.{path}", inspect.unwrap(method)) for path, method in methods if not path.startswith("_")]


def packages() -> list[str]:
    """Return ``sklgap`` and its sub-packages that have public names."""
    found = [info.name for info in pkgutil.iter_modules(sklgap.__path__) if info.ispkg]
    found.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    names = ["sklgap", *(f"sklgap.{name}" for name in found if not name.startswith("_"))]
    return [name for name in names if getattr(importlib.import_module(name), "__all__", None)]


def adapters(package: str) -> list[str]:
    """Return the public modules of a package that are imported by their own name: they need another library each."""
    modules = [f"{package}.{info.name}" for info in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    public = [name for name in modules if name not in packages() and not name.rpartition(".")[2].startswith("_")]
    return [name for name in public if getattr(importlib.import_module(name), "__all__", None)]


def public_names(package: str) -> list[str]:
    """Return the public names of one package in the order of the alphabet."""
    names = importlib.import_module(package).__all__
    return sorted((name for name in names if not name.startswith("__")), key=str.lower)


def places() -> dict[str, str]:
    """Return the package of the page of every public name: the top level where it is there, else its sub-package."""
    found: dict[str, str] = {}
    for package in packages():
        for name in public_names(package):
            first = found.setdefault(name, package)
            if first != package and value_of(first, name) is not value_of(package, name):
                raise ValueError(f"{name} is one thing in {first} and another in {package}.")
    return found


def value_of(package: str, name: str) -> Any:
    """Return what a public name stands for."""
    return getattr(importlib.import_module(package), name)
