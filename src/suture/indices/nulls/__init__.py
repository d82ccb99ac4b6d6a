"""Nulls of indices over permutations of rows, and rows about the means of their classes."""
