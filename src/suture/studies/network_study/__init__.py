"""A study of many networks, and what it says."""
