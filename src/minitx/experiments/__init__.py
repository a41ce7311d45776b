"""Fits, verdicts and scans in plain Python, which studies, figures and pages share."""
