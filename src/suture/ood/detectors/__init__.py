"""Detectors of representations that a target network never has at a site."""
