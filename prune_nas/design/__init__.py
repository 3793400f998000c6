"""Values, decisions and file schemas: pure Python, no torch, no optuna."""
