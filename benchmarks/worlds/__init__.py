"""Recovery in worlds as they are: see `python -m benchmarks.worlds --help`."""
