"""How far apart two samples of scores are."""
