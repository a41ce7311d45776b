"""Trained models in use, whichever engine runs them."""
