"""Tasks of a study, where their results are kept, and the engines that run them."""
