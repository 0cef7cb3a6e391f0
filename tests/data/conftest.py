"""A cache folder of their own for tests that read data."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("CHEMSCALE_CACHE", str(folder))
    return folder
