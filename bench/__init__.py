"""Speeds, as ratios of two figures of one run: `python -m bench`, or `make bench`."""
