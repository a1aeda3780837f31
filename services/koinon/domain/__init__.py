"""Ids, manifest, grant, run, round and wire schemas. Pure: no I/O, no clock, no randomness."""
