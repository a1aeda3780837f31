"""Secure aggregation: the hub learns the sum of the sites' updates and nothing else (docs/protocol.md).

`site.SiteAttempt` and `hub.HubAttempt` are the two sides of one attempt, as pure state machines: no I/O, no clock,
no randomness. `ring.Codec` turns an update into words of a ring, `masking.apply` hides them.
"""
