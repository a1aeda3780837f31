"""The images under test: built from the Dockerfile by buildah, kept as one OCI layout, imported into the node.

`python -m tests.cluster.oci [TARGET...]` does what is missing of all three and prints seconds and sizes.
"""
