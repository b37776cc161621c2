"""The daemon: owns every process, the KV accounting, the run sets, the models' workers and the journal.

One asyncio loop, no locks. `main` starts it, `core` holds its parts together, `server` talks to clients through the
syscall table (`syscalls`, `handlers/`), `lifecycle` owns the transitions of processes and `turns` brings their tokens,
`residency` decides which models are loaded, by who has what of the memory (`claims`). Per loaded model there is one
`conductor` with its parts: `workshop` (the worker, over a `link`), `pager` (where KV is, over the `memory` ledger),
`planner` (who runs, with the `scheduler`) and `digest` (what the worker says, the token path).
"""
