"""Wrappers around networks: taken off, switched off, and weights that lie elsewhere."""
