"""Comparisons of named arrays, without networks."""
