"""One folder of the site for each version: ``sphinx-build docs site/0.1.0``.

A build into a folder that has the name of the version writes a page above it, which lists all versions there and leads
to the newest one. Each page of the build links to that list. A build into another folder writes no such page.
"""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{project}: versions</title>
<style>body {{ font: 1.1rem/1.6 system-ui, sans-serif; margin: 3rem auto; max-width: 40rem; padding: 0 1rem; }}</style>
</head>
<body>
<h1>{project}: versions of this documentation</h1>
<ul>
{items}
</ul>
</body>
</html>
"""


def order(version: str) -> tuple[tuple[int, ...], bool, str]:
    """Return a key that sorts versions: a release comes after its development versions."""
    numbers = re.match(r"[\d.]+\d", version)
    release = numbers[0] if numbers else ""
    return tuple(int(part) for part in release.split(".") if part), version == release, version


def versions_in(folder: Path) -> list[str]:
    """Return the versions that are built in a folder, the newest first."""
    found = [path.parent.name for path in folder.glob("*/objects.inv") if re.match(r"\d", path.parent.name)]
    return sorted(found, key=order, reverse=True)


def write_list(project: str, folder: Path) -> None:
    """Write the page that lists the versions in a folder."""
    items = "\n".join(f'<li><a href="{version}/index.html">{version}</a></li>' for version in versions_in(folder))
    (folder / "index.html").write_text(PAGE.format(project=project, items=items), encoding="utf-8")


def announce(app: Sphinx) -> None:
    """Give the pages a link to the list where there will be one."""
    if Path(app.outdir).name == app.config.version:
        app.config.html_theme_options["navbar_end"] = ["version-list", "theme-switcher", "navbar-icon-links"]


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Write the list after a build into a folder of its version."""
    folder = Path(app.outdir)
    if exception is None and app.builder.format == "html" and folder.name == app.config.version:
        write_list(app.config.project, folder.parent)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the list of versions."""
    app.connect("builder-inited", announce, priority=10)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
