"""A hospital's agent: the only part of a site that talks to the hub, and the only one that holds its keys.

`serve.serve(folder)` runs it; `setup` enrols a site, grants and revokes. It imports neither torch nor ray, and
takes nothing from the trainer but safetensors and JSON of a size and form known beforehand.
"""
