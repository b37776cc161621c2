"""LLMasOS: an operating system for language models that lives in a terminal."""

__version__ = "0.1.0"
