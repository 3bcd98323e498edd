import pytest


@pytest.fixture(autouse=True)
def _nothing_allowed(monkeypatch):
    monkeypatch.delenv("SEGBENCH_TARGETS", raising=False)


@pytest.fixture
def tiny(tiny_config):
    return tiny_config()
