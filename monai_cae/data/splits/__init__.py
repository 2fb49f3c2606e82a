"""Who is in which set, and whether anything leaks between the sets."""
