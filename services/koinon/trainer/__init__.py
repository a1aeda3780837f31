"""The trainer: serves one hospital's local training over a Unix socket. See server.py for its HTTP API.

It runs research code and reads data, holds no key, and imports nothing of koinon but the learner's class.
"""
