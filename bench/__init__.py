"""Benchmarks: the pipeline against single-machine engines doing the same work on generated lines."""
