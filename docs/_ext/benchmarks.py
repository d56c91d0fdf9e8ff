"""The page of the benchmarks, written from their records in every build: sentences, tables and pictures.

What stands in ``docs/results/benchmarks/*.json`` is shown, and nothing else: a record that is not there has no section.
Two forms are known beside the head of every record (``command``, ``environment``): ``cases``, each with ``ratios`` to a
loop by hand, ``aims`` and perhaps ``peak_megabytes``, by names; and ``growth``, seconds against sizes.
"""

import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

FOLDER = Path(__file__).resolve().parents[1] / "results" / "benchmarks"
PAGE = "benchmarks"
# The line of the page in whose place the text stands.
MARK = "% written from results/benchmarks"
# The record that answers "how fast".
TRAINING = "training_overhead"
TITLES = {TRAINING: "Training", "measuring": "Measuring", "growth": "How cost grows"}
NAMES = {
    "sklgap": "a whole fit",
    "sklgap epochs": "its epochs alone",
    "skorch": "plain skorch",
    "loop": "the loop by hand",
}
# Known names have the colours in the order above in every picture.
COLOURS = ("first", "second", "third", "fourth", "fifth")
REPEATED = "Medians of interleaved repeats, in one run."

Record = dict[str, Any]


def records(folder: Path = FOLDER) -> dict[str, Record]:
    """Return the records by the names of their files, those of training first."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    order = [*TITLES, *(name for name in found if name not in TITLES)]
    return {name: found[name] for name in order if name in found}


def page(found: Mapping[str, Record]) -> str:
    """Return the text of the page below its title, in Markdown."""
    if not found:
        return "Nothing has been recorded yet.\n"
    parts = [answer(found[TRAINING])] if TRAINING in found else []
    for name, record in found.items():
        title = TITLES.get(name, name.replace("_", " ").capitalize())
        if "growth" in record:
            parts.append(growth_section(title, record["growth"]))
        elif "cases" in record:
            parts.append(ratio_section(title, record["cases"]))
    return "\n\n".join([*parts, sources(found)]) + "\n"


# -- sentences and tables ----------------------------------------------------------------------------------------------


def answer(record: Record) -> str:
    """Return how fast a fit is, in a sentence and a table."""
    cases = record["cases"]
    to_loop = [case["ratios"]["sklgap"] for case in cases]
    to_skorch = [case["ratios"]["sklgap"] / case["ratios"]["skorch"] for case in cases]
    said = (
        f"A whole fit takes {min(to_loop):.2f} to {max(to_loop):.2f} times as long as the loop that you would write by "
        "hand in PyTorch with default settings, and "
        f"{min(to_skorch):.2f} to {max(to_skorch):.2f} times as long as plain skorch. Below 1 is faster. A fit does "
        "more than the loop: it validates the data, and ends with batch-norm statistics and the accuracy of the final "
        "weights."
    )
    rows = [
        [
            case["case"],
            _with_aim(case, "sklgap"),
            _with_aim(case, "sklgap epochs"),
            f"{case['ratios']['skorch']:.2f}",
            f"{case['seconds']['loop']:.2g}",
        ]
        for case in cases
    ]
    head = ["times the loop by hand", "a whole fit (aim)", "its epochs alone (aim)", "plain skorch", "loop (s)"]
    return f"{said}\n\n{_table([head, *rows])}"


def _with_aim(case: Mapping[str, Any], name: str) -> str:
    aim = case["aims"].get(name)
    return f"{case['ratios'][name]:.2f}" + ("" if aim is None else f" ({aim:g})")


def ratio_section(title: str, cases: Sequence[Mapping[str, Any]]) -> str:
    """Return the section of a record of ratios, with the peaks of memory where they were measured."""
    # What the others are divided by is 1 everywhere.
    names = [name for name in cases[0]["ratios"] if any(case["ratios"].get(name) != 1 for case in cases)]
    rows = [
        (case["case"], {n: case["ratios"][n] for n in names if n in case["ratios"]}, case.get("aims", {}))
        for case in cases
    ]
    told = f"{REPEATED} An upright stroke is the aim for the mark of its colour."
    text = f"## {title}\n\n{told}\n\n{_raw(dots('times the loop by hand', rows, mark_one=True))}"
    measured = [case for case in cases if case.get("peak_megabytes")]
    if measured:
        peaks = [(case["case"], {n: max(v, 1.0) for n, v in case["peak_megabytes"].items()}, {}) for case in measured]
        text += (
            "\n\n### Memory\n\nThe peak of a process that does nothing else, above what it has with the data. What is "
            f"below one megabyte is drawn as one.\n\n{_raw(dots('megabytes', peaks))}"
        )
    return text


def growth_section(title: str, growth: Sequence[Mapping[str, Any]]) -> str:
    """Return the section of a record of growth."""
    parts = [
        f"## {title}",
        f"{REPEATED} An exponent is the slope of log time against log size by least squares over the upper half of the "
        "sizes, with its standard error. 1 is linear. Below 1, what every call costs still shows.",
    ]
    pictures = []
    for of in dict.fromkeys(one["of"] for one in growth):
        lines = {
            f"{one['name']}: {_exponent(one)}": list(zip(one["sizes"], one["seconds"], strict=True))
            for one in growth
            if one["of"] == of
        }
        pictures.append(curves(of, lines))
    rows = [[one["of"], one["name"], _exponent(one), f"{one['seconds'][-1]:.2g}"] for one in growth]
    table = _table([["against", "what", "exponent", "seconds at the largest size"], *rows])
    return "\n\n".join([*parts, _raw("".join(pictures)), table])


def _exponent(one: Mapping[str, Any]) -> str:
    error = one["standard_error"]
    return f"{one['exponent']:.2f}" + ("" if error is None or math.isnan(error) else f" ± {error:.2f}")


def sources(found: Mapping[str, Record]) -> str:
    """Return command, hardware and versions of every record."""
    parts = ["## Commands, hardware and versions"]
    for name, record in found.items():
        parts.append(f"`{name}.json`: {record['environment']}.\n\n```text\n{record['command']}\n```")
    return "\n\n".join(parts)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = ("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest])


def _raw(svg: str) -> str:
    return f'```{{raw}} html\n<div class="sklgap-charts">{svg}</div>\n```'


# -- pictures: inline SVG in the colours of the page, so that they follow its dark and its light mode ------------------


def dots(
    unit: str, rows: Sequence[tuple[str, Mapping[str, float], Mapping[str, Any]]], *, mark_one: bool = False
) -> str:
    """Return a row of marks for each (label, values by name, aims by name), on a logarithmic axis."""
    names = list(dict.fromkeys(name for _, values, _ in rows for name in values))
    shown = [v for _, values, aims in rows for v in [*values.values(), *(a for a in aims.values() if a)]]
    left, right, top, step = 290, 700, 52, 30
    bottom = top + step * len(rows)
    x, ticks = _log_axis([*shown, 1.0] if mark_one else shown, left, right)
    colours = _colours(names)
    parts = _legend({NAMES.get(name, name): colours[name] for name in names}, left)
    parts += _upright(ticks, x, top - 8, bottom)
    if mark_one:
        parts.append(f'<line x1="{x(1):.1f}" y1="{top - 8}" x2="{x(1):.1f}" y2="{bottom}" class="one"/>')
    for i, (label, values, aims) in enumerate(rows):
        y = top + step * (i + 0.5)
        parts.append(f'<text x="{left - 14}" y="{y + 4:.1f}" class="row">{html.escape(label)}</text>')
        for name, colour in colours.items():
            if aims.get(name):
                at = x(aims[name])
                parts.append(f'<line x1="{at:.1f}" y1="{y - 11}" x2="{at:.1f}" y2="{y + 11}" class="aim {colour}"/>')
            if name in values:
                told = f"{label}, {NAMES.get(name, name)}: {values[name]:.3g} {unit}"
                mark = f'<circle cx="{x(values[name]):.1f}" cy="{y}" r="5" class="{colour}">'
                parts.append(f"{mark}<title>{html.escape(told)}</title></circle>")
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 40}">{html.escape(unit)}</text>')
    return _svg(720, bottom + 50, unit, parts)


def curves(unit: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return a line for each name through its (size, seconds), on logarithmic axes; the names stand above."""
    left, right, top = 70, 460, 40 + 20 * len(lines)
    bottom = top + 230
    x, x_ticks = _log_axis([size for line in lines.values() for size, _ in line], left, right)
    y, y_ticks = _log_axis([seconds for line in lines.values() for _, seconds in line], bottom, top)
    parts = [f'<text x="{(left + right) / 2}" y="18" class="title">{html.escape(unit)}</text>']
    parts += _legend(dict(zip(lines, COLOURS, strict=False)), left, top=36, below=True)
    parts += _upright(x_ticks, x, top, bottom)
    for tick in y_ticks:
        parts.append(f'<line x1="{left}" y1="{y(tick):.1f}" x2="{right}" y2="{y(tick):.1f}" class="grid"/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" class="row">{_number(tick)} s</text>')
    for colour, line in zip(COLOURS, lines.values(), strict=False):
        points = " ".join(f"{x(size):.1f},{y(seconds):.1f}" for size, seconds in line)
        parts.append(f'<polyline points="{points}" class="line {colour}"/>')
        parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" class="{colour}"/>' for a, b in line]
    return _svg(480, bottom + 30, f"seconds against {unit}", parts)


def _log_axis(values: Sequence[float], start: float, end: float) -> tuple[Callable[[float], float], list[float]]:
    """Return where a value stands, and the ticks: powers of ten, or 1, 2, 5 where these are few."""
    low, high = math.log10(min(values)), math.log10(max(values))
    margin = 0.05 * (high - low) or 0.1
    low, high = low - margin, high + margin

    def at(value: float) -> float:
        return start + (end - start) * (math.log10(value) - low) / (high - low)

    decades = range(math.floor(low), math.ceil(high) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.2, 1.5, 2, 3, 4, 5, 7)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
        if len(ticks) >= 3:
            break
    return at, ticks


def _upright(ticks: Sequence[float], x: Callable[[float], float], top: float, bottom: float) -> list[str]:
    parts = []
    for tick in ticks:
        parts.append(f'<line x1="{x(tick):.1f}" y1="{top}" x2="{x(tick):.1f}" y2="{bottom}" class="grid"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 18}">{_number(tick)}</text>')
    return parts


def _colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each name; five can be told apart."""
    found = {name: COLOURS[list(NAMES).index(name)] for name in names if name in NAMES}
    free = [colour for colour in COLOURS if colour not in found.values()]
    return found | dict(zip([name for name in names if name not in NAMES], free, strict=False))


def _legend(colours: Mapping[str, str], left: float, *, top: float = 20, below: bool = False) -> list[str]:
    parts = []
    for i, (name, colour) in enumerate(colours.items()):
        x, y = (left, top + 20 * i) if below else (left + 140 * i, top)
        parts.append(f'<circle cx="{x + 5}" cy="{y}" r="5" class="{colour}"/>')
        parts.append(f'<text x="{x + 16}" y="{y + 4}" class="name">{html.escape(name)}</text>')
    return parts


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def _svg(width: float, height: float, spoken: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {width} {height}" style="max-width: {width}px" role="img"'
    return f'{head} aria-label="{html.escape(spoken)}">{"".join(parts)}</svg>'


# -- Sphinx ------------------------------------------------------------------------------------------------------------


def write_page(app: Sphinx, docname: str, content: list[str]) -> None:
    """Put the text in the place of the mark."""
    if docname != PAGE:
        return
    for path in FOLDER.glob("*.json"):
        app.env.note_dependency(str(path))
    content[0] = content[0].replace(MARK, page(records()))


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the page when Sphinx reads it."""
    app.connect("source-read", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
