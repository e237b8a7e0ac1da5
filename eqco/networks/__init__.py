"""Encoders: a backbone, whose features are evaluated, and a projector for the loss."""
