"""Golden results: numbers of one version of suture, which later versions must give again."""
