"""What suture tells while it works: bars on a terminal or in a notebook, and the logger `suture`."""
