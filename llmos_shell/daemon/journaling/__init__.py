"""The journal: what is kept of processes on disk, and the thread that writes it."""
