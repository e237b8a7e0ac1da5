"""Does contrastive learning need many negatives? A runnable grid (see README.md)."""

__version__ = "0.1.0"
