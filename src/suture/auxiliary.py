"""Auxiliary data."""
