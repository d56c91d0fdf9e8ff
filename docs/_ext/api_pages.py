"""The API reference, written by every build from ``__all__``: a new public name needs no edit here."""

import importlib
from pathlib import Path
from typing import Any

from public_names import adapters, displays, fields, packages, places, public_names, questions, records
from sphinx.application import Sphinx

INTRODUCTION = """\
Every public name stands below, under the question that it answers. The page of each name says from where the name is
imported, what it does, which parameters it takes, and what it returns.

"""
DISPLAYS = "How do I draw it?"
RECORDS = "What do functions return?"
# So many of the places that a record comes from.
SHOWN = 8
# The question that callbacks for other libraries belong to.
ADAPTED = "My training loop is my own: what can I measure in it?"
MODULES = "The same names by module"
OF_RECORDS = """\
A function that measures or compares returns a *record*. A record prints as text, and its fields are attributes. The
page of each record defines its fields.

.. _results:

What all results of experiments have
------------------------------------

Experiments such as `compare_regimes` and `batch_size_curve` return results. All results have these fields and methods:

``verdict``
   The one or two sentences that answer the question of the experiment.
``notes``
   What you must know before you believe the numbers, in sentences.
``records``
   The measurements, one dict for each.
``settings``
   What was trained and measured, and the versions of the packages.
``interrupted``
   Whether Ctrl-C or SIGTERM ended the experiment early.
``text()``
   What is printed, or parts of it.
``to_frame()``
   A pandas DataFrame of the measurements.
``to_json()``, ``to_latex()``, ``to_markdown()``
   The whole result as JSON, and its table for a paper or a page.
``plot()``
   A figure, where the result has one.

All records
-----------
"""


def write_pages(app: Sphinx, config: Any) -> None:
    """Write the index, the records and a page per package; autosummary writes one per name."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    _write(folder / "index.rst", _index())
    _write(folder / "records.rst", _records())
    for package in packages():
        _write(folder / f"{package}.rst", _page(package))


def _index() -> str:
    text = _title("API reference") + INTRODUCTION
    for question, names in questions().items():
        text += _title(question, "-") + _table([f"~{name}" for name in names])
        if question == ADAPTED:
            links = [f"`{name.split('.')[-2]} <{name}>`" for package in packages() for name in _adapted(package)]
            text += f"Callbacks for other libraries: {', '.join(links)}.\n\n"
    text += _title(RECORDS, "-")
    text += "Records, such as `Sharpness` and `RegimeComparison`. :doc:`records` lists them all, with their fields.\n\n"
    text += _title(DISPLAYS, "-") + _table([f"~{places()[name]}.{name}" for name in displays()])
    tree = "\n".join(f"   {page}" for page in ["records", *packages()])
    return f"{text}{_title(MODULES, '-')}.. toctree::\n   :maxdepth: 1\n\n{tree}\n"


def _records() -> str:
    text = _title("What functions return") + OF_RECORDS
    for name, makers in sorted(records().items()):
        thing = getattr(importlib.import_module(places()[name]), name)
        summary = " ".join((thing.__doc__ or "").partition("\n\n")[0].split())
        text += f"\n`{name}`\n   {summary}\n"
        if makers:
            others = f", and {len(makers) - SHOWN} others" if len(makers) > SHOWN else ""
            text += f"\n   From {', '.join(_maker(maker) for maker in makers[:SHOWN])}{others}.\n"
        if fields(name):
            text += f"\n   Fields: {', '.join(f'``{field}``' for field in fields(name))}.\n"
    return text


def _maker(path: str) -> str:
    """Return the link to what has a record; a field has its entry on the page of its class."""
    name, _, field = path.partition(".")
    return f"`{path} <{name}>`" if field and field in fields(name) else f"`{path}`"


def _page(package: str) -> str:
    own = [name for name in public_names(package) if places()[name] == package]
    above = [name for name in public_names(package) if places()[name] == "sklgap" != package]
    elsewhere = [name for name in public_names(package) if places()[name] not in ("sklgap", package)]
    text = _title(package) + (importlib.import_module(package).__doc__ or "") + "\n"
    if above:
        text += _table([f"~sklgap.{name}" for name in above], "These names are at the top level of the package too:")
    if elsewhere:
        text += _table([f"~{places()[name]}.{name}" for name in elsewhere], "These names belong to another module too:")
    if own:
        caption = "These names are in this module only:" if above or elsewhere else ""
        text += _table([f"~{package}.{name}" for name in own], caption, pages=True)
    if adapters(package):
        caption = "These names are for other libraries. Each module imports its library:"
        text += _table(_adapted(package), caption, pages=True)
    return f"{text}\n.. module:: {package}\n"  # last: names above it are written in full


def _adapted(package: str) -> list[str]:
    """Return the full names in the modules that need another library."""
    return [f"{module}.{name}" for module in adapters(package) for name in public_names(module)]


def _table(names: list[str], caption: str = "", *, pages: bool = False) -> str:
    options = "   :nosignatures:\n" + ("   :toctree: generated\n" if pages else "")
    rows = "\n".join(f"   {name}" for name in names)
    return f"\n{caption}\n\n.. autosummary::\n{options}\n{rows}\n\n"


def _title(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n\n"


def _write(path: Path, text: str) -> None:
    """Write where something has changed: Sphinx reads again what is newer than its last build."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for files."""
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
