"""Fits and verdicts that studies and figures share."""
