"""What all workers share: everything between the daemon's messages and an engine's primitive operations.

`worker`       the worker's main: handshake, socket, step loop, exit
`loop`         which sequences compute what in the next step, and what came of it
`table`        the open sequences, and what the daemon's messages do to them
`sequence`     one sequence: its tokens, its turn, what a sampled token means for it
`sampling`     the next token as a pure function of logits, parameters, seed and position
`text`         tokens to text, safe for UTF-8 and stop strings that tokens split
`images`       KV images in files, verified before an engine sees them
`threads`      how many compute threads are worth having just now
`options`      what `models.toml` hands to a kernel, checked
`templates`    chat templates, and turning conversations into tokens
`conformance`  the tests every engine must pass
"""
