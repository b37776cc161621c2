"""Fixtures for tests of the project and of third-party kernels and plugins."""
