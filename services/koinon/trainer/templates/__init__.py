"""Audited models that need no package."""
