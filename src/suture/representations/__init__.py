"""Room representations."""
