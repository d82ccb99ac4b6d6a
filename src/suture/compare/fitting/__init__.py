"""Stages that fit: moments and direct matching, and task loss matching."""
