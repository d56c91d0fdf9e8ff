"""Names in single backticks become links to the one page of what they name, however the docstring writes them.

Names of other projects become links where their inventories can be read, and plain text without a network.
"""

import importlib
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from docutils import nodes
from public_names import places
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.intersphinx import resolve_reference_any_inventory

# The documentation of other projects, whose names need no page here.
PROJECTS = {
    "torch": "https://docs.pytorch.org/docs/stable/",
    "sklearn": "https://scikit-learn.org/stable/",
    "skorch": "https://skorch.readthedocs.io/en/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
    "pandas": "https://pandas.pydata.org/docs/",
    "matplotlib": "https://matplotlib.org/stable/",
    "joblib": "https://joblib.readthedocs.io/en/stable/",
}
# Docstrings name what these hold by its last name.
FOREIGN_MODULES = ("sklearn.model_selection", "sklearn.preprocessing", "sklearn.pipeline", "skorch", "torch.nn")
# Set to anything, no inventory is asked for: for a build that must not use the network.
OFFLINE = "SKLGAP_DOCS_OFFLINE"
INVENTORY = b"# Sphinx inventory version"


def inventories(folder: Path, seconds: float = 5.0) -> dict[str, tuple[str, str]]:
    """Return the value of ``intersphinx_mapping``: the projects whose inventories are in the folder now.

    They are loaded into the folder where there is a network. Where there is not, those of an earlier build do, and a
    project without one is left out, silently: its names are then no links.
    """
    paths = {name: folder / f"{name}.inv" for name in PROJECTS}
    if not os.environ.get(OFFLINE):
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(len(paths)) as pool:
            list(pool.map(lambda name: _load(f"{PROJECTS[name]}objects.inv", paths[name], seconds), paths))
    return {name: (PROJECTS[name], str(path)) for name, path in paths.items() if path.exists()}


def _load(address: str, path: Path, seconds: float) -> None:
    """Write what is at the address to the path if it is an inventory."""
    try:
        with urllib.request.urlopen(address, timeout=seconds) as answer:
            content = answer.read()
    except (OSError, ValueError):
        return
    if content.startswith(INVENTORY):
        path.write_bytes(content)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element) -> Any:
    """Return the link of a name that Sphinx did not find where it was written."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removeprefix("~")
    if target.partition(".")[0] in PROJECTS:
        return _foreign_link(env, node, contnode, [target])
    parts = target.removeprefix("sklgap.").split(".")
    known = places()
    for i, part in enumerate(parts):
        if part in known:
            full = ".".join([known[part], *parts[i:]])
            found = env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, contnode)
            return found if found is not None or not _exists(known[part], parts[i:]) else contnode
    if _is_internal(target):
        return contnode
    names = foreign_names(target)
    return _foreign_link(env, node, contnode, names) if names else None


def foreign_names(name: str) -> list[str]:
    """Return the full names that another project's inventory may have for a last name; empty where there is none."""
    for module in FOREIGN_MODULES:
        thing = getattr(importlib.import_module(module), name, None)
        if thing is not None:
            return [f"{module}.{name}", f"{getattr(thing, '__module__', module)}.{name}"]
    return []


def _foreign_link(env: BuildEnvironment, node: pending_xref, contnode: nodes.Element, names: list[str]) -> Any:
    """Return the link to the first of the names that an inventory has, else the plain text."""
    for name in names:
        wanted = node.copy()
        wanted["reftarget"], wanted["reftype"] = name, "obj"
        found = resolve_reference_any_inventory(env, False, wanted, contnode)
        if found is not None:
            return found
    return contnode


def _exists(package: str, path: list[str]) -> bool:
    """Say whether the attribute is there, though it has no entry of its own."""
    thing = importlib.import_module(package)
    for name in path:
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True


def _is_internal(target: str) -> bool:
    """Say whether it is a private name of the package, which has no page."""
    module, _, name = target.rpartition(".")
    try:
        return bool(module) and hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the resolver, before that of intersphinx: our names come first."""
    app.connect("missing-reference", resolve, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
