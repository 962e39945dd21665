"""Benchmarks beside a named peer: alternating runs, medians of at least five. `make bench` runs all of them."""
