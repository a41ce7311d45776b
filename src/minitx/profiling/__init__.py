"""Timers, peak speed, utilisation, and what a number depends on."""
