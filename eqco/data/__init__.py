"""Data: packed datasets, and the augmented views of every step."""
