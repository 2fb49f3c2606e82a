"""A stage from start to end: checked, run, interrupted, resumed."""
