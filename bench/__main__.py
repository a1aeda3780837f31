"""Runs every benchmark. Exits with 1 if a ratio misses its target."""

import sys

from bench import protect, rounds

met = [benchmark.main() for benchmark in (protect, rounds)]
sys.exit(0 if all(met) else 1)
