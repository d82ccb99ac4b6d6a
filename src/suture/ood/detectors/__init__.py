"""Detectors of representations unlike those that the target network itself has at a site."""
