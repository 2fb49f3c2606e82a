"""Who takes part: tables, subjects, the rules for patients and controls, covariates."""
