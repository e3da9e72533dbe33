"""Measurements of the project itself, run from its root by ``python -m benchmarks.NAME``; no part of the package."""
