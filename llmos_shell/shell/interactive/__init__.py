"""The shell on a terminal: line editing, completion, highlighting, history and the live toolbar."""
