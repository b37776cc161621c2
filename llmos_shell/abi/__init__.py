"""The contracts between the parts: data, errors and protocols, no behaviour.

`errors`    what can go wrong, as one exception with an errno-like code
`types`     the data that more than one part speaks of (processes, sampling, limits, models)
`wire`      frames between a client and the daemon
`syscall`   how a syscall is declared
`syscalls`  the declarations of the built-in syscalls: the daemon's whole interface
`worker`    messages between the daemon and a worker
`engine`    what an engine must do for the shared step loop
`kernel`    the manifest by which a kernel is found without importing it

Every message is a `msgspec.Struct`; unknown fields are ignored, so a newer peer may add fields. A change that an older
peer would misread raises `PROTOCOL`. Nothing here imports another part of the project.
"""

PROTOCOL = 2
"""Version of all messages; both handshakes compare it and refuse a different one."""
