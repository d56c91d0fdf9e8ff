"""The description for a package index is README.md with absolute links. All else is in pyproject.toml."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent
CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"^!\[([^\]]*)\]\((?!https:)([^)\s]+)\)\n+", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https:|#)([^)\s]+)\)")


def long_description(readme: str, repository: str | None) -> str:
    """Put the repository's address before relative links and pictures; without an address, only links' words stay."""
    picture, link = "", r"\1"
    if repository:
        picture, link = rf"![\1]({repository}/raw/main/\2)\n\n", rf"[\1]({repository}/blob/main/\2)"
    parts = CODE.split(readme)
    parts[::2] = [LINK.sub(link, PICTURE.sub(picture, prose)) for prose in parts[::2]]
    return "".join(parts)


def repository() -> str | None:
    """Return the public address, for which pyproject.toml is the only place."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


if __name__ == "__main__":
    from setuptools import setup

    setup(
        long_description=long_description((ROOT / "README.md").read_text(encoding="utf-8"), repository()),
        long_description_content_type="text/markdown",
    )
