"""The import floors of the house: a file imports from lower floors and its own part only."""

import ast
from pathlib import Path

import pytest

import sklgap

ROOT = Path(sklgap.__file__).parent
FLOORS = [
    {"_version"},
    {"_checks", "_random", "_tables", "_threads", "_tracebacks", "_typing"},
    {"memory"},
    {"objective", "nets", "regimes", "datasets"},
    {"remedies", "inspection"},
    {"training", "monitor"},
    {"estimator"},
    {"experiments", "metrics"},
    {"cli"},
    {"__main__"},
]
SKORCH = {
    "monitor/skorch.py",
    "training/_callbacks.py",
    "training/_checkpoint.py",
    "training/_datasets.py",
    "training/_averaging.py",
    "training/_epoch_tasks.py",
    "training/_full_batch.py",
    "training/_net.py",
    "training/_recorder.py",
    "training/_splits.py",
    "training/_step_timer.py",
    "training/_weights_keeper.py",
}
FLOOR = {part: height for height, parts in enumerate(FLOORS) for part in parts}
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def _part(words):
    """The part of the package a path or a module name belongs to; "" for the package itself."""
    name = words[0].removesuffix(".py") if words else ""
    return "" if name == "__init__" else name


def _runs_later(node):
    """Functions, and what a type checker alone reads."""
    checked = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return checked or isinstance(node, ast.FunctionDef | ast.Lambda)


def _imports(source, package):
    """Yield (dotted words, whether it runs when the module is imported) of every import."""
    inside = {id(n) for part in ast.walk(source) if _runs_later(part) for n in ast.walk(part)}
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split("."), id(node) not in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            # `from sklgap import objective` means the part, not the package.
            for alias in node.names:
                yield ([*base, alias.name] if base == ["sklgap"] else base), id(node) not in inside


def violations(path, text):
    """Return a sentence for every import of the file that the house forbids."""
    own, package = _part(path.split("/")), ["sklgap", *path.split("/")[:-1]]
    if own and own not in FLOOR:
        yield f"{path}: {own} has no floor"
        return
    for words, at_import in _imports(ast.parse(text), package):
        if words[0] == "skorch" and path not in SKORCH:
            yield f"{path}: only {', '.join(sorted(SKORCH))} import skorch"
        if words[0] in ("matplotlib", "mpl_toolkits") and at_import:
            yield f"{path}: matplotlib is imported inside plot methods only"
        if words[0] != "sklgap" or path == "__init__.py":
            continue
        other = _part(words[1:])
        if other == own or (own == "__main__" and other not in FLOOR):
            continue
        if other not in FLOOR:
            yield f"{path}: imports {'.'.join(words)}, which is no part below it"
        elif FLOOR[other] >= FLOOR[own]:
            yield f"{path}: floor {FLOOR[own]} imports {other} of floor {FLOOR[other]}"


@pytest.mark.parametrize("path", FILES)
def test_imports_go_down(path):
    assert not list(violations(path, (ROOT / path).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("objective/_loss.py", "from sklgap.nets import F1"),
        ("objective/_loss.py", "from ..nets import F1"),
        ("objective/_loss.py", "from .. import nets"),
        ("objective/_check.py", "def f():\n    import skorch"),
        ("training/_step.py", "from skorch import NeuralNet"),
        ("remedies/_base.py", "import sklgap.inspection"),
        ("inspection/_sharpness.py", "from sklgap.remedies._base import Remedy"),
        ("inspection/_sharpness.py", "from sklgap import LBGapClassifier"),
        ("inspection/_plot/_lines.py", "from sklgap.estimator._classifier import LBGapClassifier"),
        ("inspection/_plot/_lines.py", "import matplotlib.pyplot as plt"),
        ("inspection/_plot/_lines.py", "class A:\n    from matplotlib import pyplot"),
        ("inspection/_plot/_lines.py", "if True:\n    from matplotlib import pyplot"),
        ("inspection/_sharpness.py", "if TYPE_CHECKING:\n    from sklgap import LBGapClassifier"),
        ("training/_net.py", "def f():\n    from sklgap.estimator._parameters import make_net"),
        ("metrics/_sharpness.py", "from sklgap.experiments import compare_regimes"),
        ("regimes/_base.py", "from sklgap.estimator import _nested_parameters"),
        ("monitor/_noise.py", "from sklgap.training import TrainingRecorder"),
        ("monitor/_noise.py", "import skorch"),
        ("training/_net.py", "from sklgap.monitor import BatchSizeMonitor"),
        ("surprise/_new.py", ""),
    ],
)
def test_the_test_finds(path, text):
    assert list(violations(path, text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("objective/_loss.py", "from sklgap._typing import Aux\nfrom ._parameters import flatten\nimport torch"),
        ("inspection/_plot/_lines.py", "def plot():\n    import matplotlib\nfrom .. import _sharpness"),
        ("inspection/_plot/_lines.py", "if TYPE_CHECKING:\n    from matplotlib.axes import Axes"),
        ("experiments/_compare.py", "from sklgap import estimator\nfrom sklgap.inspection import sharpness"),
        (
            "estimator/_classifier.py",
            "from sklgap.estimator import _parameters\nimport sklgap.training",
        ),
        ("training/_net.py", "import skorch.callbacks\nfrom sklgap.objective import Objective"),
        ("monitor/_noise.py", "from sklgap.inspection import gradient_noise_scale\nimport sklgap.regimes"),
        ("__main__.py", "from sklgap import compare_regimes, LBGapClassifier\nimport sklgap.datasets"),
    ],
)
def test_the_test_allows(path, text):
    assert not list(violations(path, text))
