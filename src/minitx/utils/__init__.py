"""Errors, files, console, autograd."""
