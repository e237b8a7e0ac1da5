"""The command line: one file per step of the pipeline."""
