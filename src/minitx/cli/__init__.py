"""One module a command, `train` among them: argv, progress, streams."""
