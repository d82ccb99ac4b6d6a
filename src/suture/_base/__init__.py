"""Room _base."""
