"""A study as one TOML file: read, planned, trained, run, cleaned."""
