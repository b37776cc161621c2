"""Loaded models: which may be, what they take of the machine, their workers, and the size of their pools."""
