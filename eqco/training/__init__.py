"""From views to a trained encoder."""
