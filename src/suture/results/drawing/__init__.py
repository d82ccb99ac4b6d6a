"""Drawings of a comparison: heat maps, pairs, profiles, curves and histograms, each fitted to its room."""
