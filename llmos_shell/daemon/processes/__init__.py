"""Processes: what they are, how they change, what they say, and how their turns become tokens."""
