"""Frechet distance."""
