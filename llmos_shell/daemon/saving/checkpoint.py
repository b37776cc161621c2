"""Processes to checkpoint files and back: takes the snapshots, and judges what a file may be used for.

The file format is in `engine.checkpoints`; it is read and written in a thread.
"""

from __future__ import annotations

import fcntl
import os
import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import MsgspecError, structs

from llmos_shell import __version__
from llmos_shell.abi import memory as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Kind, Reason, Turn
from llmos_shell.daemon.memory.park import remove_file
from llmos_shell.daemon.processes import lifecycle
from llmos_shell.daemon.processes.process import Phase, Process
from llmos_shell.daemon.processes.record import decode_record, encode_record, from_record
from llmos_shell.daemon.processes.table import INIT
from llmos_shell.daemon.saving import recovery
from llmos_shell.engine import images
from llmos_shell.engine.checkpoints import Facts, Index, Member, Reader, Written, write

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.conductor import Conductor


# -- writing -----------------------------------------------------------------------------------------------------------


async def checkpoint(core: Core, args: abi.Checkpoint) -> abi.Checkpointed:
    """Writes a process, or a tree of them. Raises ESRCH, EINVAL, and what writing the file may."""
    processes = [_living(core, args.pid)]
    if args.tree:
        processes += [one for one in core.table.descendants(args.pid) if one.alive and one.kind is Kind.MODEL]
    sources = [await _snapshot(core, process) for process in processes]

    def work() -> tuple[Written, list[Facts]]:
        members = [source() for source in sources]
        return write(args.path, members, __version__), [member.facts for member in members]

    done, facts = await core.read(work)
    return abi.Checkpointed(
        args.path, tuple(process.pid for process in processes), sum(one.tokens for one in facts),
        sum(one.kv_tokens for one in facts), done.bytes, done.written,
    )  # fmt: skip


def _living(core: Core, pid: int) -> Process:
    process = core.table.living(pid)
    if process.kind is not Kind.MODEL:
        raise LlmosError(Code.EINVAL, f"{pid} is no model's process", pid=pid)
    return process


async def _snapshot(core: Core, process: Process) -> Callable[[], Member]:
    """Takes the process as it is now. What is returned makes the member of the file, not on the loop."""
    conductor = await _conductor(core, process)
    temporary, problem = "", ""
    if conductor is not None:
        temporary, problem = await _export(conductor, process)
    path = temporary or process.image
    descriptor = _open(path)
    if temporary:
        remove_file(temporary)
    if problem:
        core.events.warning("memory", f"its KV is not in the checkpoint: {problem}", process.pid)
    record, tokens, text = encode_record(process), array("i", process.tokens), process.output.read(0)
    facts = Facts(
        process.pid, process.ppid, process.name, process.model, _weights(process, conductor), "", len(tokens), 0
    )
    return lambda: _member(facts, record, tokens, text, descriptor)


async def _conductor(core: Core, process: Process) -> Conductor | None:
    """Its model, loaded if need be: only that knows which weights the tokens are for. None where it cannot be."""
    try:
        return await core.residency.get(process.model)
    except LlmosError as error:
        core.events.warning("memory", f"its checkpoint cannot say for which weights it is: {error}", process.pid)
        return None


def _weights(process: Process, conductor: Conductor | None) -> str:
    if conductor is None or conductor.workshop.info is None or process.weights not in ("", conductor.weights):
        return ""
    return conductor.workshop.info.weights


async def _export(conductor: Conductor, process: Process) -> tuple[str, str]:
    """(path of a fresh image, what went wrong) of a process whose KV is in the worker."""
    if process.leaving:
        await conductor.tokenizer.settled()
    pager = conductor.workshop.pager
    future = pager.snapshot(process) if pager is not None else None
    if future is None:
        return "", ""
    path = process.leaving_to
    problem = await future
    return ("" if problem else path), problem


def _open(path: str) -> int:
    """A descriptor, so that the file can be read although it may be removed at any time; -1 without a file.

    Locked, so that the worker does not use the file for another image once it has no name.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else -1
    except OSError:
        return -1
    if descriptor >= 0:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _member(facts: Facts, record: bytes, tokens: array[int], text: str, descriptor: int) -> Member:
    blob: bytes | memoryview = b""
    if descriptor >= 0:
        try:
            image = images.read(f"/proc/self/fd/{descriptor}", None)
            header, blob = image.header, image.blob
            facts = structs.replace(
                facts, fingerprint=header.fingerprint, kv_tokens=len(header.tokens), layout=header.layout,
                kv_bytes_per_token=header.kv_bytes_per_token,
            )  # fmt: skip
        except LlmosError:
            blob = b""  # damaged: its tokens are computed again
        finally:
            os.close(descriptor)
    return Member(facts, record, tokens.tobytes(), text.encode(errors="replace"), blob)


# -- reading -----------------------------------------------------------------------------------------------------------


async def restore(core: Core, args: abi.Restore, session: Process) -> abi.RestoredAll:
    """Makes processes of a file. Raises ENOENT, EIO (damaged), EINVAL (another format, other weights)."""
    index, members, note = await core.read(lambda: _read(args.path))
    core.table.require_room(len(members))
    conductors = {member.facts.model: await core.residency.get(args.model or member.facts.model) for member in members}
    for member in members:
        _check_weights(args, member.facts, conductors[member.facts.model])
    made: dict[int, Process] = {}
    notes: dict[int, str] = {}
    try:
        for member in members:
            process = _process(core, member, conductors[member.facts.model], index.created)
            _place(process, member.facts.ppid, made, None if args.detached else session)
            made[member.facts.pid] = process
            notes[process.pid] = await _give_kv(core, process, member, conductors[member.facts.model])
    except BaseException:
        for process in made.values():
            core.swap.discard(process)
        raise
    for process in made.values():
        lifecycle.spawned(core, process)
        core.journal.append(
            process.pid, 0, process.tokens[:], process.output.read(0), turn=len(process.turns) - 1, role="restore"
        )
    for process in made.values():
        _start(core, process)
    await core.durable()
    rows = tuple(_row(former, process, notes[process.pid]) for former, process in made.items())
    return abi.RestoredAll(index.created, rows, note)


def _read(path: str) -> tuple[Index, list[Member], str]:
    with Reader(path) as reader:
        return reader.index, [reader.member(entry) for entry in reader.index.entries], reader.note


def _check_weights(args: abi.Restore, facts: Facts, conductor: Conductor) -> None:
    info = conductor.workshop.info
    ours = info.weights if info is not None else ""
    if facts.weights == ours or args.reread or not facts.tokens:
        return
    theirs = facts.weights or "unknown weights"
    text = f"{args.path} is of {theirs}, but {conductor.entry.name} is {ours or 'unknown'}"
    hint = "name the right model with --model, or have the conversation read again with --reread"
    raise LlmosError(Code.EINVAL, text, hint=hint)


def _process(core: Core, member: Member, conductor: Conductor, created: float) -> Process:
    tokens = array("i")
    try:
        record = decode_record(member.record)
        tokens.frombytes(member.tokens)
    except (MsgspecError, ValueError) as error:
        raise LlmosError(Code.EINVAL, f"process {member.facts.pid} in it cannot be read: {error}") from None
    process = from_record(record, tokens.tolist(), member.text.decode())
    process.pid = core.table.next_pid()
    process.model = conductor.key
    process.image, process.image_bytes = "", 0
    process.started = time.time() - max(0.0, created - process.started)
    process.known_computed = 0
    process.scope = f"p{process.pid}" if process.scope else ""
    info = conductor.workshop.info
    if info is None or info.weights != member.facts.weights:
        _reread(core, process)
    process.weights = conductor.weights if process.tokens else ""
    return process


def _reread(core: Core, process: Process) -> None:
    """For other weights: only the text counts. An answer that was being given ends where it is."""
    if process.phase is Phase.READY:
        text = process.output.read(process.turn_offset) + process.held
        process.turns.append(Turn(process.answer_role, text, 0, Reason.INTERRUPT))
        process.phase, process.chat = Phase.IDLE, True
    process.held = ""
    process.tokens.clear()
    process.known = process.turn_start = process.computed = process.known_computed = process.sinks = 0
    process.kv = core.swap.state(process)


def _place(process: Process, former_parent: int, made: dict[int, Process], session: Process | None) -> None:
    """Its parent is the one it had, if that came back as well, else the session."""
    process.session = session.pid if session is not None else 0
    process.tty = session.tty if session is not None else ""
    parent = made.get(former_parent)
    if process.summarises:  # what the number was of is another process now, perhaps a stranger
        process.summarises = parent.pid if parent is not None else 0
    process.ppid = parent.pid if parent is not None else process.session or INIT


async def _give_kv(core: Core, process: Process, member: Member, conductor: Conductor) -> str:
    """Puts its KV into RAM as an image; returns why not, if so."""
    facts, info = member.facts, conductor.workshop.info
    if not process.tokens or not facts.kv_tokens or info is None:
        return ""
    if facts.fingerprint != info.fingerprint:
        return f"its KV is of {facts.fingerprint}, not {info.fingerprint}: recomputed"
    if not core.swap.tiers.reserve(process.pid, len(member.kv)):
        return "there is no room for its KV in RAM: recomputed"
    header = images.Header(
        images.VERSION, facts.fingerprint, tuple(process.tokens[: facts.kv_tokens]), facts.layout,
        facts.kv_bytes_per_token, len(member.kv),
    )  # fmt: skip
    path = core.swap.new_path(process)
    try:
        size = await core.read(lambda: images.write(path, header, member.kv))
    except LlmosError as error:
        core.swap.tiers.release(process.pid)
        return f"{error}: recomputed"
    core.swap.took(process, path, size, facts.kv_tokens)
    return ""


def _start(core: Core, process: Process) -> None:
    """Lets it go on. A sleeping chat takes its KV into the pool at once if that costs nobody anything."""
    conductor = core.residency.find(process.model)
    if process.phase is not Phase.IDLE:
        recovery.resume(core, process)
    elif conductor is not None:
        conductor.attach(process)
        if conductor.workshop.pager is not None and process.tokens:
            conductor.workshop.pager.open_idle(process)


def _row(former: int, process: Process, note: str) -> abi.Restored:
    count = len(process.tokens)
    reused = min(process.computed, count)
    return abi.Restored(process.pid, former, process.name, process.state, count, reused, count - reused, note)
