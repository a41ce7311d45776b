"""Which architecture suits a problem: demands, candidates with figures, a decision and what would change it."""
