"""Experiments that are grids of cells: every layer of one network into every layer of another."""
