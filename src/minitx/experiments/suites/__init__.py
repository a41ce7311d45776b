"""Systems times seeds, each run a process of its own."""
