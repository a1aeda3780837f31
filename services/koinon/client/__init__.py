"""The SDK: what a researcher does with a hub, from a notebook or a script.

Most need two verbs: `koinon.connect()` for the hub that `koinon login` left, and `koinon.local(sites=4)` for
a federation of the same code on this machine. Both give a `Hub`; a `Project` and a `Run` follow from it.
"""
