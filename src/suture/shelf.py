"""Detectors on disk."""
