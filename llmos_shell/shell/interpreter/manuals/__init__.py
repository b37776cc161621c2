"""Manuals of the commands that are part of the language, by what they are for. Data only.

They have no declarations that parse their words, because POSIX wants each of them read in its own way.
"""
