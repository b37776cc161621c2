"""The daemon: owns every process, the KV accounting, the run sets, the models' workers and the journal.

One asyncio loop, no locks. `main` starts it, `core` holds its parts together, `server` talks to clients through the
syscall table (`syscalls`, `handlers/`), `lifecycle` owns the transitions of processes, `residency` decides which models
are loaded, and one `conductor` per loaded model decides what its worker runs.
"""
