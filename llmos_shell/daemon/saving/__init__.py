"""Processes to files and back: checkpoints, hibernation, and coming back after a restart."""
