"""Parts that tests give to the project by config. The working examples are in examples/."""
