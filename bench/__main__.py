"""Runs every benchmark. Exits with 1 if a ratio misses its target (PROTECTION.md's table in docs/protocol.md)."""

import sys

from bench import protect

sys.exit(0 if protect.main() else 1)
