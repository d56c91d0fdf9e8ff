"""Every example in a docstring runs, and everything public has one."""

import doctest
import importlib
import inspect
import pkgutil
import sys

import pytest

import sklgap

MODULES = sorted({"sklgap", *(info.name for info in pkgutil.walk_packages(sklgap.__path__, "sklgap."))})
PACKAGES = [name for name in MODULES if hasattr(importlib.import_module(name), "__all__")]

# Public names that need no example of their own.
RECORDS = {
    "AccumulationCheck",
    "BatchSizeCurve",
    "BatchSizeLimits",
    "BranchedCriticalBatchSize",
    "Components",
    "Contrast",
    "CriticalBatchSize",
    "Estimate",
    "GradientNoise",
    "GradientStandardError",
    "StepsToLoss",
    "StepsTradeoff",
    "DiffusionFit",
    "Evaluation",
    "GapExplanation",
    "GapReport",
    "Flatness",
    "FlatnessTable",
    "HessianEigenvalues",
    "HessianTrace",
    "HyperparameterTransfer",
    "LossCurve",
    "LossSurface",
    "NonInferiority",
    "MeasureRanking",
    "MinimaCensus",
    "ParallelModel",
    "RankedMeasure",
    "RegimeComparison",
    "RitzValues",
    "SafeBatchSize",
    "Sharpness",
    "SharpnessTrajectory",
    "SpectralDensity",
    "StabilityThreshold",
    "StabilityTrajectory",
    "WarmStartCurve",
    "TimeToAccuracy",
    "TransferRule",
}  # returned, not built by users
DISPLAYS = {
    "BatchSizeCurveDisplay",
    "BranchedCriticalBatchSizeDisplay",
    "CriticalBatchSizeDisplay",
    "GapExplanationDisplay",
    "GapReportDisplay",
    "LearningCurvesDisplay",
    "MeasureRankingDisplay",
    "MinimaCensusDisplay",
    "SharpnessTrajectoryDisplay",
    "SpectrumDisplay",
    "StabilityTrajectoryDisplay",
    "StepsToLossDisplay",
    "WarmStartDisplay",
    "WeightDistanceDisplay",
    "ParallelModelDisplay",
    "ParametricPlotDisplay",
    "RegimeComparisonDisplay",
    "TimeToAccuracyDisplay",
}  # they draw
NETS = {"C1", "C2", "C3", "C4", "F1", "F2", "ResNet44", "WRN16_4"}  # architectures; "F1" and so on for users
MADE_BY_OTHERS = {"RestrictedObjective", "Subspace", "TrainingNet"}  # what restrict, random_subspace and fit return
ONE_LINE = {"random_subspace"}
EXEMPT = RECORDS | DISPLAYS | NETS | MADE_BY_OTHERS | ONE_LINE
# What the classifier is made of: names that are not in ``sklgap.__all__`` too are for those who extend it.
PARTS = {"sklgap.nets", "sklgap.regimes", "sklgap.remedies", "sklgap.training"}


def _examples(name):
    module = importlib.import_module(name)
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(module, name) if test.examples]


# Their examples need other libraries: tests/monitor runs them, where .ci/run has installed these.
ADAPTERS = {"sklgap.monitor.lightning", "sklgap.monitor.transformers"}
WITH_EXAMPLES = [name for name in MODULES if _examples(name) and name not in ADAPTERS]


def _marked(name):
    # An experiment trains some ten nets; .ci/run has these examples too.
    return pytest.param(name, marks=[pytest.mark.slow] if name.startswith("sklgap.experiments.") else [])


@pytest.mark.parametrize("name", [_marked(name) for name in WITH_EXAMPLES])
def test_examples_run(name):
    runner = doctest.DocTestRunner()
    failures = []
    for test in _examples(name):
        runner.run(test, out=failures.append)
    if "matplotlib.pyplot" in sys.modules:  # an example shows its figure; the next test wants none open
        sys.modules["matplotlib.pyplot"].close("all")
    assert not failures, "".join(failures)


def test_there_are_examples():
    # A search that finds nothing would pass.
    assert {
        "sklgap.estimator._classifier",
        "sklgap.inspection._sharpness",
        "sklgap.experiments._compare_regimes",
    } <= set(WITH_EXAMPLES)


PUBLIC = {
    name: (getattr(importlib.import_module(package), name), package)
    for package in reversed(PACKAGES)  # the shortest name last: it counts
    for name in importlib.import_module(package).__all__
    if not name.startswith("__")
}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_everything_public_has_a_docstring_with_an_example(name):
    thing, package = PUBLIC[name]
    if inspect.isclass(thing) or callable(thing):
        assert thing.__doc__, f"{name} has no docstring"
        if name not in EXEMPT and package not in PARTS:
            assert ">>> " in thing.__doc__, f"{name} has no example"


def test_no_exemption_is_left_over():
    assert set(PUBLIC) >= EXEMPT
    for package in PACKAGES:
        module = importlib.import_module(package)
        assert len(set(module.__all__)) == len(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


# -- numpydoc ----------------------------------------------------------------------------------------------------------

# No docstring needs an extended summary or a See Also; which ones have an example is tested above.
NOT_NEEDED = {"ES01", "SA01", "EX01"}
# Hooks and `plot` describe their arguments and their result in a line, or in the docstring of the class.
NOT_NEEDED_OF_METHODS = {"PR01", "RT01", "RT03", "YD01"}
# Classes that are returned, not built by users, have Attributes in place of Parameters.
NOT_NEEDED_OF_RECORDS = {"PR01"}
RETURNED = RECORDS | {"SavedWork"}
# Its signature hides the nested parameters of skorch, because scikit-learn's checks would refuse them.
HIDDEN_KWARGS = ("LBGapClassifier", "PR02")


def _faults(package):
    """Return what numpydoc's validation says of the public names of a package, by name."""
    from numpydoc.validate import validate

    found = {}
    for name, (thing, own_package) in PUBLIC.items():
        if own_package != package or not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        methods = {}
        if inspect.isclass(thing):
            kinds = (property, classmethod, staticmethod)
            methods = {
                key for key, value in vars(thing).items() if inspect.isfunction(value) or isinstance(value, kinds)
            }
        for full in [name, *(f"{name}.{method}" for method in sorted(methods) if not method.startswith("_"))]:
            skipped = NOT_NEEDED | (NOT_NEEDED_OF_METHODS if full != name else set())
            skipped = skipped | (NOT_NEEDED_OF_RECORDS if full == name and name in RETURNED else set())
            errors = validate(f"{package}.{full}")["errors"]
            wrong = [
                f"{code}: {text}" for code, text in errors if code not in skipped and (full, code) != HIDDEN_KWARGS
            ]
            if wrong:
                found[full] = wrong
    return found


@pytest.mark.slow  # numpydoc brings Sphinx: .ci/run has it where it builds the documentation
@pytest.mark.parametrize("package", sorted({package for _, package in PUBLIC.values()}))
def test_public_docstrings_pass_numpydocs_validation(package):
    pytest.importorskip("numpydoc")
    assert _faults(package) == {}
