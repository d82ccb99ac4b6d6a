"""Following a study while it runs: events in a log, callbacks, and trackers of experiments."""
