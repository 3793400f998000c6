"""prune-nas: neural architecture search by pruning."""

__version__ = "0.1.0"
