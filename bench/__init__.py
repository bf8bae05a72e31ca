"""Benchmarks: each prints its figures beside its baselines from the same run. Start with `make bench`."""
