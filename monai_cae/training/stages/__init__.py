"""A stage from its settings to its end: checked, run, interrupted, resumed."""
