"""The site has a folder for each version, and a page that lists them."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def versions():
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("versions", ROOT / "docs" / "_ext" / "versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_newest_version_comes_first(versions, tmp_path):
    for name in ["0.9.0", "0.10.0.dev1", "0.10.0", "0.2.1", "other", "0.3.0"]:
        (tmp_path / name).mkdir()
        if name != "0.3.0":  # not a site
            (tmp_path / name / "objects.inv").touch()
    assert versions.versions_in(tmp_path) == ["0.10.0", "0.10.0.dev1", "0.9.0", "0.2.1"]
    versions.write_list("sklgap", tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    places = [page.index(f'href="{name}/index.html"') for name in ["0.10.0", "0.10.0.dev1", "0.9.0", "0.2.1"]]
    assert places == sorted(places)
    assert "other" not in page
    assert "0.3.0" not in page
