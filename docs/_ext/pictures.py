"""The pictures of the landing page, drawn from records of measurements in every build.

They are inline SVG in the colours of the page, so that they follow its dark and its light mode.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

RESULTS = Path(__file__).resolve().parents[1] / "results"

WIDTH, HEIGHT = 310, 240
LEFT, RIGHT, TOP, BOTTOM = 100, 210, 62, 196


def panel(
    title: str,
    unit: str,
    pairs: Sequence[tuple[float, float]],
    names: tuple[str, str],
    *,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    digits: str = ".1f",
) -> str:
    """Return an SVG with one line per paired trial from the small batch to the large one, and the means as bars."""
    scale = math.log10 if log else float
    values = [scale(v) for pair in pairs for v in pair]
    low, high = (scale(v) for v in limits) if limits else (min(values), max(values))
    margin = 0.08 * (high - low)
    low, high = low - margin, high + margin

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (scale(value) - low) / (high - low)

    means = [sum(pair[i] for pair in pairs) / len(pairs) for i in (0, 1)]
    spoken = f"{title}: {names[0]} {means[0]:{digits}}, {names[1]} {means[1]:{digits}} {unit}"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{spoken}">',
        f'<text x="{WIDTH / 2}" y="20" class="title">{title}</text>',
        f'<text x="{WIDTH / 2}" y="38" class="unit">{unit}</text>',
    ]
    parts += [f'<line x1="{LEFT}" y1="{y(a):.1f}" x2="{RIGHT}" y2="{y(b):.1f}" class="trial"/>' for a, b in pairs]
    for i, (x, kind, anchor, side) in enumerate([(LEFT, "sb", "end", -24), (RIGHT, "lb", "start", 24)]):
        parts += [f'<circle cx="{x}" cy="{y(pair[i]):.1f}" r="3.5" class="{kind}"/>' for pair in pairs]
        if len(pairs) > 1:
            parts.append(f'<rect x="{x - 18}" y="{y(means[i]) - 2:.1f}" width="36" height="4" class="{kind}"/>')
        parts.append(
            f'<text x="{x + side}" y="{y(means[i]) + 6:.1f}" class="value {kind}" text-anchor="{anchor}">'
            f"{means[i]:{digits}}</text>"
        )
        parts.append(f'<text x="{x}" y="224" class="name">{names[i]}</text>')
    return "".join([*parts, "</svg>"])


def paired(records: list[dict[str, Any]], key: str, factor: float = 1.0) -> list[tuple[float, float]]:
    """Return the values of the small and of the large batch in each trial."""
    values = {(record["regime"], record["trial"]): factor * record[key] for record in records}
    return [(values["SB", trial], values["LB", trial]) for trial in sorted({trial for _, trial in values})]


def gap() -> list[str]:
    """Return accuracy, sharpness and distance of the five paired trials of F1 on MNIST."""
    records = json.loads((RESULTS / "mnist_f1_sb_lb.json").read_text(encoding="utf-8"))["records"]

    names = ("batch 256", "batch 6,000")
    return [
        panel(
            "The large batch tests lower",
            "test accuracy (%)",
            paired(records, "test_accuracy", 100),
            names,
            digits=".2f",
        ),
        panel(
            "Its minimum is sharper",
            "sharpness (%), log scale",
            paired(records, "sharpness_0.001"),
            names,
            log=True,
            digits=".3g",
        ),
        panel(
            "It stayed near its start",
            "distance of the weights, log scale",
            paired(records, "weight_distance"),
            names,
            log=True,
            digits=".3g",
        ),
    ]


def batch_norm() -> list[str]:
    """Return the test accuracy of the same nets under two batch-norm policies: C1 on CIFAR-10, five paired trials."""
    records = json.loads((RESULTS / "cifar10_c1.json").read_text(encoding="utf-8"))["continued"]
    found = {
        "Judged by running averages": paired(records, "test_accuracy_running", 100),
        "Judged by batch statistics": paired(records, "test_accuracy_batch", 100),
    }
    values = [value for pairs in found.values() for pair in pairs for value in pair]
    names, limits = ("batch 64", "batch 1,000"), (min(values), max(values))
    return [panel(title, "test accuracy (%)", pairs, names, limits=limits) for title, pairs in found.items()]


PICTURES = {"gap": gap, "batch-norm": batch_norm}


class Picture(Directive):
    """``picture``: one of `PICTURES` by its name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the picture."""
        panels = "".join(PICTURES[self.arguments[0]]())
        return [nodes.raw("", f'<div class="sklgap-picture">{panels}</div>', format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
