"""Files of a study: checkpoints, the results of a cell, their archive, their provenance."""
