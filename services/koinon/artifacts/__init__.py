"""Sealed artifacts: how they are made, checked, opened and kept. `sealing` first, then `stores`."""
