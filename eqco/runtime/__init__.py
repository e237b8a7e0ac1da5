"""The machine: processes, ranks, GPUs, locks, signals, files."""
