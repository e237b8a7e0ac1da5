"""Evaluation: the accuracies of a frozen encoder, by several protocols."""
