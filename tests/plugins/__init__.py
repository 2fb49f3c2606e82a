"""What a user adds to the project without touching it: one file and one overlay each."""
