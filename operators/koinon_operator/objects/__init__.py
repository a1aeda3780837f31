"""What the operator wants to be there: pure builders of Kubernetes objects. They say all that matters, defaults too."""
