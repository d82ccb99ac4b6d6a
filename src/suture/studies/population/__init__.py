"""The networks of a study, and the pairs of them."""
