"""The page of the benchmarks, written from their records in every build: sentences, tables and figures.

The page shows the records in ``docs/results/benchmarks/*.json`` and nothing else. A missing record has no section.
Every record has its ``command`` and ``environment``, and one of two bodies: ``cases`` hold ratios to code written by
hand, aims, and perhaps peaks of memory; ``growth`` holds seconds against sizes.
"""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

if TYPE_CHECKING:  # the tests of the page run without Sphinx
    from sphinx.application import Sphinx

FOLDER = Path(__file__).resolve().parents[1] / "results" / "benchmarks"
PAGE = "benchmarks"
# The text replaces this line of the page.
MARK = "% written from results/benchmarks"
# The record that answers "how fast".
TRAINING = "training_overhead"
TITLES = {TRAINING: "Training", "gpu_overhead": "Epochs on a GPU", "measuring": "Measuring", "growth": "How cost grows"}
# What the times are divided by.
UNITS = {"measuring": "times the bare passes"}
LOOP = "times the loop by hand"
# The order of the columns, and of the colours.
NAMES = {
    "sklgap": "a whole fit",
    "sklgap epochs": "its epochs alone",
    "skorch": "plain skorch",
    "loop": "the loop by hand",
}
REPEATED = "All times are medians of interleaved repeats in one run."

Record = dict[str, Any]
Cases = Sequence[Mapping[str, Any]]


def records(folder: Path = FOLDER) -> dict[str, Record]:
    """Return the records by the names of their files, in the order of the page."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    order = [*TITLES, *(name for name in found if name not in TITLES)]
    return {name: found[name] for name in order if name in found}


def page(found: Mapping[str, Record]) -> str:
    """Return the text of the page below its title, in Markdown."""
    if not found:
        return "Nothing has been recorded yet.\n"
    parts = [answer(found[TRAINING]["cases"])] if TRAINING in found else []
    for name, record in found.items():
        parts.append(f"## {TITLES.get(name, name.replace('_', ' ').capitalize())}")
        parts += growth_section(record["growth"]) if "growth" in record else []
        parts += ratio_section(record["cases"], UNITS.get(name, LOOP)) if "cases" in record else []
    return "\n\n".join([*parts, *sources(found)]) + "\n"


def answer(cases: Cases) -> str:
    """Return how fast a fit is, in a few sentences."""
    to_loop = [case["ratios"]["sklgap"] for case in cases]
    to_skorch = [case["ratios"]["sklgap"] / case["ratios"]["skorch"] for case in cases]
    return (
        f"A whole fit takes {min(to_loop):.2f} to {max(to_loop):.2f} times as long as the loop that you would write by "
        f"hand in PyTorch with default settings, and {min(to_skorch):.2f} to {max(to_skorch):.2f} times as long as "
        "plain skorch. A number below 1 means that the fit is faster. A fit does more than the loop: it validates the "
        "data, and it computes batch-norm statistics and the accuracy of the final weights."
    )


def ratio_section(cases: Cases, unit: str) -> list[str]:
    """Return table and figure of ratios, and the peaks of memory where they were measured."""
    # The ratio of the code that all times are divided by is 1 in every case.
    names = [name for name in _names(cases, "ratios") if any(case["ratios"].get(name, 1) != 1 for case in cases)]
    loop = any("loop" in case["seconds"] for case in cases)
    head = [unit, *(NAMES.get(name, name) for name in names), *(["loop (s)"] if loop else [])]
    rows = [
        [case["case"], *(_ratio(case, name) for name in names), *([f"{case['seconds']['loop']:.2g}"] if loop else [])]
        for case in cases
    ]
    said = f"{REPEATED} A number in brackets is the aim, which the figure shows as an upright stroke."
    parts = [said, _table(head, rows), _embedded(ratio_figure(cases, names, unit), f"{unit}, as in the table")]
    measured = [case for case in cases if case.get("peak_megabytes")]
    if measured:
        peaks = _names(measured, "peak_megabytes")
        rows = [[c["case"], *(_number(c["peak_megabytes"].get(name)) for name in peaks)] for c in measured]
        said = "Each figure is the peak of a process that does nothing else, above its memory with the data loaded."
        parts += ["### Memory", said, _table(["megabytes", *(NAMES.get(name, name) for name in peaks)], rows)]
    return parts


def growth_section(growth: Cases) -> list[str]:
    """Return table and figure of how seconds grow with sizes."""
    said = (
        f"{REPEATED} An exponent is the slope of log time against log size, with its standard error. It is fitted by "
        "least squares to the upper half of the sizes. An exponent of 1 means linear growth. A smaller one means that "
        "the fixed cost of a call still shows."
    )
    rows = [[one["of"], one["name"], _exponent(one), f"{one['seconds'][-1]:.2g}"] for one in growth]
    table = _table(["against", "what", "exponent", "seconds at the largest size"], rows)
    return [said, table, _embedded(growth_figure(growth), "seconds against sizes, with the exponents of the table")]


def sources(found: Mapping[str, Record]) -> list[str]:
    """Return command, hardware and versions of every record."""
    return ["## Commands, hardware and versions"] + [
        f"`{name}.json`: {record['environment']}.\n\n```text\n{record['command']}\n```"
        for name, record in found.items()
    ]


def _names(cases: Cases, key: str) -> list[str]:
    known = list(NAMES)
    found = dict.fromkeys(name for case in cases for name in case[key])
    return sorted(found, key=lambda name: known.index(name) if name in known else len(known))


def _ratio(case: Mapping[str, Any], name: str) -> str:
    aim = case.get("aims", {}).get(name)
    value = case["ratios"].get(name)
    return "" if value is None else f"{value:.2f}" + ("" if aim is None else f" ({aim:g})")


def _exponent(one: Mapping[str, Any]) -> str:
    error = one["standard_error"]
    return f"{one['exponent']:.2f}" + ("" if error is None or math.isnan(error) else f" ± {error:.2f}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


# -- figures -----------------------------------------------------------------------------------------------------------


def ratio_figure(cases: Cases, names: Sequence[str], unit: str) -> Figure:
    """Return a row of marks for each case, on a logarithmic axis."""
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(cases)), layout="constrained")
    axes = figure.subplots()
    for colour, name in enumerate(names):
        places, values = zip(*((i, c["ratios"][name]) for i, c in enumerate(cases) if name in c["ratios"]), strict=True)
        axes.semilogx(values, places, "o", color=f"C{colour}", label=NAMES.get(name, name))
        aims = [(i, c["aims"][name]) for i, c in enumerate(cases) if c.get("aims", {}).get(name)]
        axes.plot([aim for _, aim in aims], [i for i, _ in aims], "|", color=f"C{colour}", ms=14, mew=2)
    axes.axvline(1, color="0.4", lw=1)
    axes.set_yticks(range(len(cases)), [case["case"] for case in cases])
    axes.margins(y=0.15)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(unit)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(names))
    return figure


def growth_figure(growth: Cases) -> Figure:
    """Return a panel for each kind of size, with a line for each of what was measured."""
    kinds = list(dict.fromkeys(one["of"] for one in growth))
    figure = Figure(figsize=(10, 4 * math.ceil(len(kinds) / 2)), layout="constrained")
    panels = dict(zip(kinds, figure.subplots(math.ceil(len(kinds) / 2), 2, squeeze=False).flat, strict=False))
    for one in growth:
        panels[one["of"]].loglog(one["sizes"], one["seconds"], "o-", label=f"{one['name']}: {_exponent(one)}")
    for kind, axes in panels.items():
        axes.set(xlabel=kind, ylabel="seconds")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    for axes in figure.axes[len(kinds) :]:
        axes.remove()
    return figure


def _embedded(figure: Figure, spoken: str) -> str:
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "sklgap"}):  # equal records give equal pages
        figure.savefig(file, format="svg", metadata={"Date": None})
    data = base64.b64encode(file.getvalue()).decode()
    image = f'<img style="max-width: 100%" alt="{html.escape(spoken)}" src="data:image/svg+xml;base64,{data}">'
    return f"```{{raw}} html\n{image}\n```"


# -- Sphinx ------------------------------------------------------------------------------------------------------------


def write_page(app: "Sphinx", docname: str, content: list[str]) -> None:
    """Replace the mark by the text."""
    if docname != PAGE:
        return
    for path in (*FOLDER.glob("*.json"), __file__):
        app.env.note_dependency(str(path))
    content[0] = content[0].replace(MARK, page(records()))


def setup(app: "Sphinx") -> dict[str, bool]:
    """Write the page when Sphinx reads it."""
    app.connect("source-read", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
