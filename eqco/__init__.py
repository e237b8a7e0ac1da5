"""Does contrastive learning need many negatives? A runnable grid (see README.md)."""

__version__ = "0.2.0"
