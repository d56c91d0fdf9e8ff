"""A short run of examples/benchmarks/mutations.py: damaged and forged files are never believed."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "benchmarks" / "mutations.py"


@pytest.fixture(scope="module")
def mutations():
    spec = importlib.util.spec_from_file_location("mutations", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("check", "n"), [("check_data", 75), ("check_memory", 10)])
def test_changed_files_are_not_believed(mutations, check, n):
    counts = getattr(mutations, check)(n, seed=1)
    assert counts.examples == []
    assert counts["refused"] > n / 2
    assert sum(counts[name] for name in ("refused", "unchanged", "indistinguishable")) == n


def test_a_believed_file_would_be_seen(mutations, monkeypatch):
    """The check can fail: a reader that takes any file is found out."""
    monkeypatch.setattr(mutations, "indistinguishable", lambda *arguments: False)
    counts = mutations.check_data(30, seed=1)
    assert counts["believed"] > 0
    assert counts.examples
