"""The rehearsal of a comparison: what it will take, from passes over a few examples."""
