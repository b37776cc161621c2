"""What the journal keeps of a process besides its tokens and text, and the way back."""

from __future__ import annotations

from msgspec import Struct, msgpack

from llmos_shell.abi.types import ExitInfo, Kind, KvState, Limits, Overflow, Reason, Sampling, Turn
from llmos_shell.daemon.journaling.records import Saved
from llmos_shell.daemon.processes.output import Output
from llmos_shell.daemon.processes.process import Phase, Process

RECORD_VERSION = 1


class Record(Struct, omit_defaults=True):
    """What the journal keeps of a process besides its tokens and text. `version` rises when a field changes meaning."""

    version: int
    pid: int
    name: str
    model: str
    phase: str
    started: float
    sampling: Sampling
    limits: Limits
    nice: int = 0
    chat: bool = False
    scope: str = ""
    tty: str = ""
    stopped: bool = False
    turn_start: int = 0
    turn_offset: int = 0
    token_count: int = 0
    raw: bool = False
    turns: tuple[Turn, ...] = ()
    known: int = 0
    held: str = ""
    weights: str = ""
    marks: tuple[tuple[int, Reason], ...] = ()
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    recomputed_tokens: int = 0
    device_seconds: float = 0.0
    joules: float | None = None
    waiting_seconds: float = 0.0
    first_token_seconds: float | None = None
    preemptions: int = 0
    image: str = ""
    image_bytes: int = 0
    exit: ExitInfo | None = None
    ended: float | None = None
    group: str = ""
    deadline: float | None = None
    missed_deadline: bool = False
    overflow: Overflow = Overflow.STOP
    sinks: int = 0
    forgotten: int = 0
    condensed: int = 0
    summary: str = ""
    summarised: int = 0
    summarises: int = 0


def encode_record(process: Process) -> bytes:
    """What the journal keeps."""
    record = Record(
            RECORD_VERSION, process.pid, process.name, process.model, process.phase.value, process.started,
            process.sampling, process.limits,
            nice=process.nice, chat=process.chat, scope=process.scope, tty=process.tty, stopped=process.stopped,
            turn_start=process.turn_start, turn_offset=process.turn_offset, token_count=len(process.tokens),
            raw=process.raw, turns=tuple(process.turns), known=process.known,
            held=process.held, weights=process.weights,
            marks=tuple(zip(process.output.mark_offsets, process.output.marks, strict=True)),
            prompt_tokens=process.prompt_tokens, reused_tokens=process.reused_tokens,
            generated_tokens=process.generated_tokens, recomputed_tokens=process.recomputed_tokens,
            device_seconds=process.device_seconds, joules=process.joules, waiting_seconds=process.waiting_seconds,
            first_token_seconds=process.first_token_seconds, preemptions=process.preemptions,
            image=process.image, image_bytes=process.image_bytes, exit=process.exit, ended=process.ended,
            group=process.named_group, deadline=process.deadline, missed_deadline=process.missed_deadline,
            overflow=process.overflow, sinks=process.sinks, forgotten=process.forgotten,
            condensed=process.condensed, summary=process.summary, summarised=process.summarised,
            summarises=process.summarises,
        )  # fmt: skip
    return _encoder.encode(record)


_encoder = msgpack.Encoder()
_decoder: msgpack.Decoder[Record] = msgpack.Decoder(Record)


def decode_record(data: bytes) -> Record:
    """A record as it was written. Raises `msgspec.MsgspecError` or ValueError for one that cannot be read."""
    record = _decoder.decode(data)
    if record.version != RECORD_VERSION:
        raise ValueError(f"its record has version {record.version}, not {RECORD_VERSION}")
    return record


def from_record(record: Record, tokens: list[int], text: str) -> Process:
    """The process of a record, without a parent, a session and KV."""
    output = Output(text)
    for offset, reason in record.marks:
        output.marks.append(reason)
        output.mark_offsets.append(offset)
    process = Process(
        record.pid, record.name, Kind.MODEL, model=record.model, nice=record.nice, tty=record.tty, chat=record.chat,
        scope=record.scope, started=record.started, sampling=record.sampling, limits=record.limits,
        phase=Phase(record.phase), stopped=record.stopped, exit=record.exit, ended=record.ended,
        raw=record.raw, turns=list(record.turns), known=record.known, tokens=tokens,
        weights=record.weights,
        turn_start=record.turn_start, turn_offset=record.turn_offset, output=output,
        prompt_tokens=record.prompt_tokens, reused_tokens=record.reused_tokens,
        generated_tokens=record.generated_tokens, recomputed_tokens=record.recomputed_tokens,
        device_seconds=record.device_seconds, joules=record.joules, waiting_seconds=record.waiting_seconds,
        first_token_seconds=record.first_token_seconds, preemptions=record.preemptions,
        image=record.image, image_bytes=record.image_bytes, reaped=record.exit is not None,
        named_group=record.group, deadline=record.deadline, missed_deadline=record.missed_deadline,
        overflow=record.overflow, sinks=record.sinks, forgotten=record.forgotten,
        condensed=record.condensed, summary=record.summary, summarised=record.summarised, summarises=record.summarises,
        metered_tokens=record.generated_tokens,
    )  # fmt: skip
    if process.alive and tokens:
        process.kv = KvState.DROPPED
        process.known_computed = len(tokens) - (process.phase is Phase.READY)  # the last one sampled never had KV
        if len(tokens) == record.token_count:
            process.held = record.held
        if process.phase is Phase.READY:
            process.generated_tokens += max(0, len(tokens) - record.token_count)
    return process


def revived(saved: Saved) -> Process:
    """The process of the journal's entry."""
    text = "".join(chunk.text for chunk in saved.chunks)
    return from_record(decode_record(saved.record), list(saved.tokens), text)
