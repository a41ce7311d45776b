"""The families, and the layers they are built from."""
