"""Executes the shell language with real files, pipes and processes: `shell.Shell` is its front door."""
