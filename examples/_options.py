"""Options of the examples on the command line, and records of their figures.

A page of the gallery shows an example with the values of ``--quick``. What belongs to
the command line stands between two marks of sphinx-gallery, which are in neither the
page, nor the notebook, nor the script that the page offers::

    # sphinx_gallery_start_ignore
    from _options import options, save

    arguments = options(__doc__, trials={"type": int, "help": "trainings of each size"})
    if not arguments.quick:
        n_trials = arguments.trials or 5
    # sphinx_gallery_end_ignore

``--output figure.png`` saves the figure as PNG and as SVG, and the numbers in it as
``figure.json``, with the command and the versions. ``--draw figure.json --output
figure.png`` draws it again from there: the last cell of an example draws, and needs
nothing but the imports of its first cell and what it gives to `save`.
"""

import argparse
import importlib
import inspect
import json
import math
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

import sklgap
from sklgap.experiments import Estimate

PACKAGES = ("torch", "scikit-learn", "skorch", "numpy", "scipy", "matplotlib")


def options(description, **own):
    """Return the options of the command line: those of all examples and its own.

    Parameters
    ----------
    description : str
        What ``--help`` prints first.
    **own : dict
        Arguments of ``add_argument`` by the name of the option.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="little data and short training, as on the page",
    )
    for name, arguments in own.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **arguments)
    parser.add_argument(
        "--output",
        type=Path,
        help="file to save the figure to; its numbers go beside it, as JSON",
    )
    parser.add_argument(
        "--draw", type=Path, help="draw again from this JSON file, and train nothing"
    )
    found = parser.parse_args()
    if found.draw:
        draw(found, inspect.currentframe().f_back.f_globals)
        raise SystemExit
    return found


def draw(arguments, namespace):
    """Run the last cell of a script with the numbers of a record."""
    path = Path(namespace["__file__"])
    source = path.read_text(encoding="utf-8")
    start = source.rindex("\n# %%")
    namespace |= decoded(
        json.loads(arguments.draw.read_text(encoding="utf-8"))["drawn"]
    ) | {"arguments": arguments}
    # Empty lines above, so that a traceback names the line of the file.
    exec(
        compile(
            "\n" * source.count("\n", 0, start) + source[start:], str(path), "exec"
        ),
        namespace,
    )


def save(figure, arguments, result=None, **numbers):
    """Save a figure, and the numbers that it is drawn from.

    Parameters
    ----------
    figure : matplotlib Figure
        What was drawn.
    arguments : Namespace
        From `options`; without ``--output`` nothing is saved.
    result : result of an experiment, default=None
        Its settings, notes and records become part of the record.
    **numbers : dict
        By the names that the last cell reads: Displays, records, arrays, text; None for
        a result that is saved but not drawn.
    """
    if arguments.output is None:
        return
    save_figure(figure, arguments.output)
    if arguments.draw is None:
        content = {"command": command(), "versions": versions()}
        if result is not None:
            content |= json.loads(result.to_json())
        content["drawn"] = encoded(numbers)
        text = json.dumps(content, indent=1, allow_nan=False)
        arguments.output.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def save_figure(figure, path):
    """Save a figure; a PNG file gets an SVG file beside it."""
    figure.savefig(path, dpi=150)
    if path.suffix == ".png":
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def saved_estimate(fields):
    """Return an `Estimate` from JSON, where a number that is not finite is null."""
    return Estimate(
        **{name: math.nan if value is None else value for name, value in fields.items()}
    )


def command():
    """Return the command that runs, with the names of files and folders alone."""
    script, *given = sys.argv
    return shlex.join(
        [
            "python",
            f"examples/{Path(script).name}",
            *(Path(a).name if "/" in a else a for a in given),
        ]
    )


def versions():
    """Return the versions that the numbers depend on."""
    return {
        "sklgap": sklgap.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def encoded(value):
    """Return arrays, records and Displays as JSON can hold them; see `decoded`."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.generic):
        return encoded(value.item())
    if isinstance(value, np.ndarray):
        values = [encoded(round_off(one)) for one in value.ravel().tolist()]
        return {"array": values, "shape": list(value.shape), "dtype": str(value.dtype)}
    if isinstance(value, dict):
        return {"items": [[encoded(key), encoded(one)] for key, one in value.items()]}
    if type(value) is list:
        return [encoded(one) for one in value]
    if type(value) is tuple:
        return {"tuple": [encoded(one) for one in value]}
    return {
        "object": f"{type(value).__module__}:{type(value).__qualname__}",
        "state": encoded(state(value)),
    }


def round_off(value):
    """Return a float with eight digits: more than a figure can show."""
    return float(f"{value:.8g}") if isinstance(value, float) else value


def state(value):
    """Return the parameters of a Display, or the fields of a record."""
    if hasattr(value, "_asdict"):
        return value._asdict()
    if type(value).__name__.endswith("Display"):
        return {
            name: getattr(value, name)
            for name in inspect.signature(type(value)).parameters
        }
    return vars(value)


def decoded(value):
    """Return what `encoded` was given."""
    if isinstance(value, list):
        return [decoded(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {decoded(key): decoded(one) for key, one in value["items"]}
    if "tuple" in value:
        return tuple(decoded(value["tuple"]))
    if "float" in value:
        return float(value["float"])
    if "array" in value:
        return np.array(decoded(value["array"]), dtype=value["dtype"]).reshape(
            value["shape"]
        )
    module, _, name = value["object"].partition(":")
    if module.partition(".")[0] != "sklgap":
        raise ValueError(
            f"A record holds objects of sklgap only; got {value['object']}."
        )
    kind, fields = (
        getattr(importlib.import_module(module), name),
        decoded(value["state"]),
    )
    if hasattr(kind, "_make"):
        return kind(**fields)
    made = object.__new__(kind)
    vars(made).update(fields)
    return made
