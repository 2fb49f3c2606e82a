"""Where work runs: here, in several processes, or on a cluster that somebody else schedules."""
