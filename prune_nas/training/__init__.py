"""One training loop, its recipes, precision and data; it knows nothing of pruning or studies."""
