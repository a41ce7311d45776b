"""Greedy, beam and sampling over `step`; strings to strings; pairs to log-probabilities."""
