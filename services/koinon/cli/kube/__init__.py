"""`kubectl koinon`: a hospital's IT grants, revokes, looks and repairs where it already works."""
