"""Benches run by hand and seldom: that each can at least be started is held here."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import bench

NAMES = sorted(module.name for module in pkgutil.iter_modules(bench.__path__) if not module.name.startswith("_"))


@pytest.mark.parametrize("name", NAMES)
def test_a_bench_can_be_imported_and_has_a_main(name: str) -> None:
    """One was broken for a day by a name that another had renamed."""
    assert callable(importlib.import_module(f"bench.{name}").main)
