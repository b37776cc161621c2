"""The shell language: lexer, syntax tree, parser, printer, expansion. Pure: no I/O, nothing heavy imported."""
