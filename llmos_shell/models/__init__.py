"""Models: which there are (`registry`), and what a weights file says of itself (`gguf`)."""
