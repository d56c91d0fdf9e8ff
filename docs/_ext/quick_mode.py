"""The gallery runs every example as ``python plot_x.py --quick``."""

from typing import Any


def reset_argv(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """Return the arguments that a script of the gallery sees."""
    return ["--quick"]
