"""Experiments on which methods and removals can be trusted, where the truth is known; `python benchmarks/trust -h`."""
