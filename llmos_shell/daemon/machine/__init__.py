"""The machine: its devices, its memory, and the energy they use."""
