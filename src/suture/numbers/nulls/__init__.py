"""Nulls over permutations of rows, and which rows may change places."""
