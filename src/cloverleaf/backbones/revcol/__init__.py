"""RevCol: reversible columns (arXiv 2212.11696)."""
