"""The `/commands` of a conversation."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import PROC_FORK, PROC_INFO, PROC_SPAWN, Fork, Forked, Pid, Spawn, Spawned
from llmos_shell.abi.types import Message, ProcessInfo, Sampling, Turn
from llmos_shell.shell import chats
from llmos_shell.shell.conversation import LeaveRequested
from llmos_shell.shell.slash_names import SLASH_COMMANDS

if TYPE_CHECKING:
    from llmos_shell.shell.conversation import Conversation

_ALIASES = {"/exit": "/bye", "/quit": "/bye", "/?": "/help"}
_SETTING_NAMES = {"tokens": "max_tokens"}


def run_slash(conversation: Conversation, text: str) -> None:
    """Runs one; raises `LeaveRequested`, or EINVAL for one that does not exist or is used wrongly."""
    name, _, rest = text.partition(" ")
    run = _COMMANDS.get(_ALIASES.get(name, name))
    if run is None:
        from difflib import get_close_matches

        close = get_close_matches(name, _COMMANDS, 1)
        mend = f"did you mean {close[0]}?" if close else "try /help"
        raise LlmosError(Code.EINVAL, f"no command {name}", hint=f"{mend} (//text sends /text)")
    run(conversation, rest.strip())


# -- leaving and looking -----------------------------------------------------------------------------------------------


def _bye(conversation: Conversation, rest: str) -> None:
    raise LeaveRequested("end")


def _detach(conversation: Conversation, rest: str) -> None:
    raise LeaveRequested("detach")


def _help(conversation: Conversation, rest: str) -> None:
    out = conversation.context.out
    for name, usage in SLASH_COMMANDS.items():
        out.write(f"  {name:<8} {usage}\n")
    out.write(
        '  //text   sends /text\n  """      begins and ends a message of several lines\n'
        "  Ctrl-C   ends the answer, Ctrl-D leaves, Alt-Enter begins another line, Ctrl-X Ctrl-E opens your editor\n"
    )
    out.flush()


def _show(conversation: Conversation, rest: str) -> None:
    if rest == "transcript":
        conversation.show_so_far()
        return
    if rest:
        raise LlmosError(Code.EINVAL, f"/show {rest}: there is no such thing", hint="/show, or /show transcript")
    process = _process(conversation)
    rows: list[tuple[str, object]] = [
        ("process", process.pid),
        ("model", process.model),
        ("context", f"{process.context_tokens} of {process.context_limit} tokens"),
        ("generated", f"{process.generated_tokens} tokens"),
        ("system", _system(conversation) or "-"),
        ("raw", "on" if conversation.raw else "off"),
    ]
    sampling = {**msgspec.structs.asdict(process.sampling or Sampling()), **conversation.sampling}
    rows += [(key, value) for key, value in sampling.items() if value not in (None, ())]
    for name, value in rows:
        conversation.context.out.write(f"  {name:<18} {conversation.context.clean(str(value))}\n")
    conversation.context.out.flush()


# -- settings ----------------------------------------------------------------------------------------------------------


def _set(conversation: Conversation, rest: str) -> None:
    key, _, value = rest.removeprefix("parameter ").partition(" ")
    value = value.strip()
    if not key:
        _show(conversation, "")
    elif key == "system":
        _set_system(conversation, value)
    elif key == "raw":
        if value not in ("on", "off"):
            raise LlmosError(Code.EINVAL, f"/set: `{value}` does not fit raw", hint="on or off")
        conversation.raw = value == "on"
    else:
        conversation.sampling |= parse_setting(_SETTING_NAMES.get(key, key), value)


def parse_setting(key: str, value: str) -> dict[str, Any]:
    """A field of `Sampling` with its value, checked. Raises EINVAL."""
    if key not in Sampling.__struct_fields__:
        from difflib import get_close_matches

        names = ("system", "raw", "tokens", *Sampling.__struct_fields__)
        close = get_close_matches(key, names, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
        raise LlmosError(Code.EINVAL, f"/set: no setting `{key}`", hint=hint)
    raw: Any = [value] if key == "stop" else value
    try:
        sampling = msgspec.convert({key: raw}, Sampling, strict=False)
    except msgspec.ValidationError:
        raise LlmosError(Code.EINVAL, f"/set: `{value}` does not fit {key}", hint="/show shows what is set") from None
    return {key: list(sampling.stop) if key == "stop" else getattr(sampling, key)}


def _system_command(conversation: Conversation, rest: str) -> None:
    if rest:
        _set_system(conversation, rest)
    else:
        conversation.context.show((_system(conversation) or "-") + "\n")
        conversation.context.out.flush()


def _set_system(conversation: Conversation, text: str) -> None:
    conversation.rewrite(system="" if text in ("", '""') else text)


def _attach(conversation: Conversation, rest: str) -> None:
    from llmos_shell.shell.attachments import attachment

    if not rest:
        raise LlmosError(Code.EINVAL, "/attach: FILE is missing", hint="/attach notes.txt")
    try:
        text = attachment(os.path.expanduser(rest))
    except OSError as error:
        raise LlmosError(Code.EIO, f"/attach: {rest}: {(error.strerror or str(error)).lower()}") from None
    conversation.files = f"{conversation.files}\n{text}" if conversation.files else text
    conversation.note(f"{rest} goes along with the next message")


# -- going back --------------------------------------------------------------------------------------------------------


def _undo(conversation: Conversation, rest: str) -> None:
    _, turns = _split(conversation.transcript().turns)
    asked = _last_asked(turns)
    conversation.rewrite(keep=asked)
    conversation.note(f"taken back: {_short(turns[asked].text)}")


def _retry(conversation: Conversation, rest: str) -> None:
    _, turns = _split(conversation.transcript().turns)
    asked = _last_asked(turns)
    conversation.rewrite(keep=asked)
    conversation.sampling.setdefault("seed", int.from_bytes(os.urandom(7), "big"))
    conversation.say(turns[asked].text)


def _clear(conversation: Conversation, rest: str) -> None:
    conversation.rewrite(keep=0)
    conversation.note("a new conversation; the system prompt stays")


# -- other places ------------------------------------------------------------------------------------------------------


def _fork(conversation: Conversation, rest: str) -> None:
    forked: Forked = conversation.context.client.call(PROC_FORK, Fork(conversation.pid, detached=True))
    conversation.note(f"forked as process {forked.pids[0]}: `attach {forked.pids[0]}` talks to it")


def _model(conversation: Conversation, rest: str) -> None:
    """Goes on with another model, in a process of its own; the one before ends, and stays in the journal."""
    from llmos_shell.shell.prompts import resolve_model

    process = _process(conversation)
    if not rest:
        conversation.context.out.write(process.model + "\n")
        conversation.context.out.flush()
        return
    turns = conversation.transcript().turns
    request = Spawn(
        model=resolve_model(rest),
        messages=tuple(Message(turn.role, turn.text) for turn in turns) or None,
        chat=True,
        name=process.name,
        nice=process.nice,
        sampling={**_settings(process), **conversation.sampling},
        limits=process.limits,
        detached=conversation.joined,
    )
    if any(turn.role not in ("system", "user", "assistant") for turn in turns):
        raise LlmosError(Code.EINVAL, "/model: this goes on with a raw text", hint="only messages can be carried over")
    spawned: Spawned = conversation.context.client.call(PROC_SPAWN, request)
    conversation.context.track(spawned.pid)
    old, conversation.pid = conversation.pid, spawned.pid
    conversation.sampling = {}
    conversation.accept(conversation.transcript())
    if not conversation.joined:
        type(conversation)(conversation.context, old).end()
    ended = "goes on beside it" if conversation.joined else "has ended"
    conversation.note(f"goes on as process {spawned.pid} with {rest}; process {old} {ended}")


def _save(conversation: Conversation, rest: str) -> None:
    if not rest:
        raise LlmosError(Code.EINVAL, "/save: NAME is missing", hint="/save talk, or /save talk.txt to read it")
    process = _process(conversation)
    settings = {**_settings(process), **conversation.sampling}
    path = chats.save(rest, process.model, conversation.transcript().turns, settings)
    conversation.note(f"saved in {path}")


def _load(conversation: Conversation, rest: str) -> None:
    if not rest:
        names = chats.names()
        conversation.context.out.write("".join(f"  {name}\n" for name in names) or "  nothing was saved yet\n")
        conversation.context.out.flush()
        return
    saved = chats.load(rest)
    system, turns = _split(saved.turns)
    if turns and turns[-1].role == "user":  # a question without an answer
        turns = turns[:-1]
    messages = tuple(Message(turn.role, turn.text) for turn in turns)
    conversation.rewrite(keep=0, system=system, messages=messages)
    conversation.sampling |= {key: value for key, value in saved.settings.items() if key in _known_settings()}
    if conversation.context.is_terminal():
        conversation.show_so_far()
    model = _process(conversation).model
    other = (
        f"; it was saved from {saved.model}: `/model {saved.model}` goes back to that" if saved.model != model else ""
    )
    conversation.note(f"loaded {len(messages)} messages{other}")


# -- shared ------------------------------------------------------------------------------------------------------------


def _process(conversation: Conversation) -> ProcessInfo:
    process: ProcessInfo = conversation.context.client.call(PROC_INFO, Pid(conversation.pid))
    return process


def _known_settings() -> set[str]:
    return set(Sampling.__struct_fields__) - {"seed"}


def _settings(process: ProcessInfo) -> dict[str, Any]:
    """What differs from the plain defaults, but for the seed."""
    built: dict[str, Any] = msgspec.to_builtins(process.sampling or Sampling())
    return {key: value for key, value in built.items() if key in _known_settings()}


def _split(turns: tuple[Turn, ...]) -> tuple[str, tuple[Turn, ...]]:
    """(the system prompt, the other turns)."""
    if turns and turns[0].role == "system":
        return turns[0].text, turns[1:]
    return "", turns


def _system(conversation: Conversation) -> str:
    return _split(conversation.transcript().turns)[0]


def _last_asked(turns: tuple[Turn, ...]) -> int:
    """Where the last message of the user is. Raises EINVAL when there is none."""
    for index in reversed(range(len(turns))):
        if turns[index].role in ("user", "prompt"):
            return index
    raise LlmosError(Code.EINVAL, "nothing was said yet")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 50 else line[:49] + "…"


_COMMANDS: dict[str, Callable[[Conversation, str], None]] = {
    "/bye": _bye,
    "/detach": _detach,
    "/undo": _undo,
    "/retry": _retry,
    "/clear": _clear,
    "/system": _system_command,
    "/model": _model,
    "/attach": _attach,
    "/set": _set,
    "/show": _show,
    "/save": _save,
    "/load": _load,
    "/fork": _fork,
    "/help": _help,
}
"""What carries them out; `slash_names` says what they do."""
