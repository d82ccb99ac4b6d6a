"""Experiments that test the measures themselves, and what the paper leaves open."""
