"""Citing: the version in ``CITATION.cff`` and on the page is the package's, and both name the same papers."""

import re
from pathlib import Path

import pytest

from sklgap import __version__

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cite.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def citation():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_version_is_that_of_the_package(citation):
    assert citation["version"] == __version__
    assert f"version = {{{__version__}}}" in PAGE
    assert f"sklgap {__version__} over" in PAGE


def test_what_the_format_asks_for(citation):
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"]
    assert citation["authors"] == [{"name": "The sklgap developers"}]
    assert citation["title"] in re.sub(r"\s+", " ", PAGE)
    assert not {"url", "repository-code", "doi"} & set(citation)  # there is no public address yet


def test_the_papers(citation):
    page = re.sub(r"\s+", " ", PAGE)
    numbers = {i["value"] for paper in citation["references"] for i in paper["identifiers"]}
    assert numbers == {"arXiv:1609.04836", "arXiv:1705.08741"}
    for paper in citation["references"]:
        assert paper["title"] in page
        assert " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]) in page
    assert all(f"eprint = {{{number.removeprefix('arXiv:')}}}" in page for number in numbers)
