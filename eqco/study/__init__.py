"""A study file: what it may say, and the grid of cells that it spans. Needs no torch."""
