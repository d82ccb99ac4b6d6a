"""Verdicts of cells."""
