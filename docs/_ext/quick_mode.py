"""The gallery runs every example as ``python plot_x.py --quick``, without progress bars in what it prints."""

from collections.abc import Callable
from typing import Any

from sphinx.application import Sphinx
from tqdm.std import tqdm


def reset_argv(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """Return the arguments that a script of the gallery sees, in the process that runs it."""
    tqdm.status_printer = staticmethod(no_bar)
    return ["--quick"]


def no_bar(file: Any) -> Callable[[str], None]:
    """Stand in for what writes a progress bar: a page would show every state of it."""
    return lambda text: None


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx that this extension keeps nothing."""
    return {"parallel_read_safe": True, "parallel_write_safe": True}
