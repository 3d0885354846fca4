"""Names of foreign checkpoints, one module per family; official quirks live here and nowhere else."""
