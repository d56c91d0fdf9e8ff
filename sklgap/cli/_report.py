"""The files that a command writes: report.html, report.json and report.png."""

import base64
import html
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_STYLE = """
body { font-family: system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.5; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: 0.25rem 0.75rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; background: white; }
.answer { font-size: 1.15rem; font-weight: 600; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee; } }
"""


def write(
    folder: Path, title: str, answers: Sequence[str], results: Sequence[Any], figure: Any, said: Sequence[str] = ()
) -> list[Path]:
    """Write a report of results, and return the paths of its files.

    Parameters
    ----------
    folder : Path
        Folder of the files; it is created if it does not exist.
    title : str
        Title of the page.
    answers : sequence of str
        Sentences at the top of the page.
    results : sequence of Result
        Results whose tables and notes follow. The JSON file holds the first result, and the others under "more".
    figure : matplotlib Figure or None
        Picture of the results; None if matplotlib is not installed.
    said : sequence of str
        Sentences about the data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "report.html", folder / "report.json"]
    first, *more = (json.loads(result.to_json()) for result in results)
    content = {"title": title, "answers": list(answers), "data": list(said), **first}
    content |= {"more": more} if more else {}
    paths[1].write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    picture = ""
    if figure is not None:
        paths.append(folder / "report.png")
        figure.savefig(paths[2], dpi=150)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg")
        encoded = base64.b64encode(buffer.getvalue()).decode()
        picture = f'<p><img alt="{html.escape(title)}" src="data:image/svg+xml;base64,{encoded}"></p>'
    lines = "".join(f'<p class="answer">{html.escape(answer)}</p>' for answer in answers)
    lines += picture + "".join(f"<p>{html.escape(line)}</p>" for line in said)
    lines += "".join(result._repr_html_() for result in results)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><h1>{html.escape(title)}</h1>{lines}</body></html>\n"
    )
    paths[0].write_text(page, encoding="utf-8")
    return paths


def pyplot() -> Any:
    """Return matplotlib's pyplot for drawing without a screen; without matplotlib, print a sentence and return None."""
    try:
        import matplotlib
    except ImportError:
        print("There is no picture, because matplotlib is not installed (pip install 'sklgap[plot]').", file=sys.stderr)
        return None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def without_mathematics(text: str) -> str:
    """Return a text that matplotlib draws literally. It would read text between two dollar signs as a formula."""
    return text.replace("$", r"\$")
