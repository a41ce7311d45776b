"""Published runs as checked rows, their tables, figures and comparisons, and one page of all."""
