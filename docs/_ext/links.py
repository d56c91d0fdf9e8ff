"""Names in single backticks become links to the one page of what they name, however the docstring writes them."""

import importlib
from typing import Any

from docutils import nodes
from public_names import places
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

# Other projects' names keep their text: the build fetches no inventory.
FOREIGN = ("torch", "sklearn", "skorch", "numpy", "scipy", "pandas", "matplotlib", "joblib")
# Docstrings name what these hold by its last name.
FOREIGN_MODULES = ("sklearn.model_selection", "sklearn.preprocessing", "sklearn.pipeline", "skorch", "torch.nn")


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element) -> Any:
    """Return the link of a name that Sphinx did not find where it was written."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removeprefix("~")
    if target.partition(".")[0] in FOREIGN:
        return contnode
    parts = target.removeprefix("sklgap.").split(".")
    known = places()
    for i, part in enumerate(parts):
        if part in known:
            full = ".".join([known[part], *parts[i:]])
            found = env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, contnode)
            return found if found is not None or not _exists(known[part], parts[i:]) else contnode
    return contnode if _is_internal(target) or _is_foreign(target) else None


def _is_foreign(name: str) -> bool:
    """Say whether another project has the name."""
    return any(hasattr(importlib.import_module(module), name) for module in FOREIGN_MODULES)


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
    """Register the resolver."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
