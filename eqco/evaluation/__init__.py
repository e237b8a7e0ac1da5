"""From a frozen encoder to its accuracies."""
