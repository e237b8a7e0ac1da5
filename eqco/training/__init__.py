"""Training: the loop from views to a trained encoder."""
