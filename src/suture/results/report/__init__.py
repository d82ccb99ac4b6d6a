"""Comparisons in, figures and pages out."""
