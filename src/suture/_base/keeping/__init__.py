"""What keeps a run: checkpoints, locks, signals, and places that are checked before any work."""
