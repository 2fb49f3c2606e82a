"""What a stage leaves behind: predictions, reports, caveats."""
