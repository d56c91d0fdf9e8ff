"""The API reference, written anew in every build from ``__all__``: a new public name needs no edit here."""

import importlib
from pathlib import Path
from typing import Any

from public_names import adapters, packages, places, public_names
from sphinx.application import Sphinx

INTRODUCTION = """\
Everything public, written from the package itself. Import it from where it stands here; what is at the top level is
in its sub-package too.
"""


def write_pages(app: Sphinx, config: Any) -> None:
    """Write ``api/index.rst`` and a page per package; autosummary writes one per name."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    pages = {package: _page(package) for package in packages()}
    tree = "\n".join(f"   {package}" for package in pages)
    _write(folder / "index.rst", f"{_title('API reference')}{INTRODUCTION}\n.. toctree::\n   :maxdepth: 1\n\n{tree}\n")
    for package, text in pages.items():
        _write(folder / f"{package}.rst", text)


def _page(package: str) -> str:
    own = [name for name in public_names(package) if places()[name] == package]
    above = [name for name in public_names(package) if places()[name] == "sklgap" != package]
    elsewhere = [name for name in public_names(package) if places()[name] not in ("sklgap", package)]
    text = _title(package) + (importlib.import_module(package).__doc__ or "") + "\n"
    if above:
        text += _table([f"sklgap.{name}" for name in above], "At the top level of the package too:", pages=False)
    if elsewhere:
        text += _table([f"{places()[name]}.{name}" for name in elsewhere], "In another part too:", pages=False)
    if own:
        text += _table([f"{package}.{name}" for name in own], "Here only:" if above or elsewhere else "", pages=True)
    if adapters(package):
        names = [f"{module}.{name}" for module in adapters(package) for name in public_names(module)]
        text += _table(names, "For other libraries, each in a module that imports its library:", pages=True, full=True)
    return f"{text}\n.. module:: {package}\n"  # last: names above it are written in full


def _table(names: list[str], caption: str, *, pages: bool, full: bool = False) -> str:
    options = "   :toctree: generated\n" if pages else ""
    rows = "\n".join(f"   {name if full else '~' + name}" for name in names)
    return f"\n{caption}\n\n.. autosummary::\n{options}\n{rows}\n"


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def _write(path: Path, text: str) -> None:
    """Write where something has changed: Sphinx reads again what is newer than its last build."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for files."""
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
