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

RECORD = Path(__file__).resolve().parents[1] / "results" / "mnist_f1_sb_lb.json"

# C1 on a fixed subset of 10,000 images of CIFAR-10 (JPEG copy), one trial each; see the page guide/trust.
CIFAR_TEST_ACCURACY = {"judged by running averages": (60.5, 64.5), "judged by population statistics": (67.9, 66.6)}

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


def gap() -> list[str]:
    """Return accuracy, sharpness and distance of the five paired trials of F1 on MNIST."""
    records = json.loads(RECORD.read_text(encoding="utf-8"))["records"]

    def pairs(key: str, factor: float = 1.0) -> list[tuple[float, float]]:
        values = {(r["regime"], r["trial"]): factor * r[key] for r in records}
        trials = sorted({trial for _, trial in values})
        return [(values["SB", trial], values["LB", trial]) for trial in trials]

    names = ("batch 256", "batch 6,000")
    return [
        panel("The large batch tests lower", "test accuracy (%)", pairs("test_accuracy", 100), names, digits=".2f"),
        panel(
            "Its minimum is sharper",
            "sharpness (%), log scale",
            pairs("sharpness_0.001"),
            names,
            log=True,
            digits=".3g",
        ),
        panel(
            "It stayed near its start",
            "distance of the weights, log scale",
            pairs("weight_distance"),
            names,
            log=True,
            digits=".3g",
        ),
    ]


def batch_norm() -> list[str]:
    """Return the test accuracy of the same two models under two batch-norm policies."""
    names = ("batch 64", "batch 1,000")
    return [
        panel(title.capitalize(), "test accuracy (%)", [pair], names, limits=(60.0, 68.0))
        for title, pair in CIFAR_TEST_ACCURACY.items()
    ]


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
