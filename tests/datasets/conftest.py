import pytest

from sklgap.datasets import _base


@pytest.fixture(autouse=True)
def _no_data_and_no_network(request, monkeypatch, tmp_path):
    """Keep the user's own data and the network out of every test that does not ask for them."""
    if request.node.get_closest_marker("realdata"):
        return

    def refuse(*args, **kwargs):
        raise AssertionError("a test asked OpenML")

    monkeypatch.delenv("SKLGAP_DATA", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "sklearn-cache"))
    monkeypatch.setattr(_base, "fetch_openml", refuse)
