"""Predictions of very many scans: a list that is fixed, chunks that any process can do, and a Parquet data set."""
