"""Programs that measure: ``python -m benchmarks`` lists them; records.md has their results."""
