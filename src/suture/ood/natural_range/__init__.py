"""The natural range: how far shifts of the input move representations while the network still works."""
