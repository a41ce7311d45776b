"""Errors, files, console, progress, tables, autograd."""
