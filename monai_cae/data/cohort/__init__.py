"""Who takes part: tables, persons, the rules of the classes, covariates."""
