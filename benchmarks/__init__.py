"""Measurements of this project's speed: `make bench` writes benchmarks/results.md."""
