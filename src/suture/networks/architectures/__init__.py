"""Architectures of suture: those of the zoo, and those of trained detectors."""
