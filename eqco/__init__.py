"""Does contrastive learning need many negatives? A runnable grid (see README.md)."""
