"""The run directory: opened and locked, checkpoints, results, what may change when a run goes on."""
