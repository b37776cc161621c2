"""How the built-in models are made. Needs the `train` extra; nothing at run time imports it."""
