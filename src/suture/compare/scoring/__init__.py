"""Scores of the cells of a grid: what each stitched network predicts, beside chance."""
