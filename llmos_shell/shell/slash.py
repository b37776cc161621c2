"""The `/commands` of a conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import PROC_FORK, PROC_INFO, Fork, Forked, Pid
from llmos_shell.abi.types import ProcessInfo, Sampling

if TYPE_CHECKING:
    from llmos_shell.shell.conversation import Conversation


class Leave(Exception):
    """The loop ends: with `end` the conversation too, with `detach` it stays."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


def run_slash(conversation: Conversation, text: str) -> None:
    """Runs one; raises `Leave`, or EINVAL for one that does not exist or is used wrongly."""
    name, _, rest = text.partition(" ")
    entry = _COMMANDS.get(name)
    if entry is None:
        from difflib import get_close_matches

        close = get_close_matches(name, _COMMANDS, 1)
        raise LlmosError(Code.EINVAL, f"no command {name}", hint=f"did you mean {close[0]}?" if close else "try /help")
    entry[1](conversation, rest.strip())


def _bye(conversation: Conversation, rest: str) -> None:
    raise Leave("end")


def _detach(conversation: Conversation, rest: str) -> None:
    raise Leave("detach")


def _help(conversation: Conversation, rest: str) -> None:
    out = conversation.context.out
    for name, (usage, _) in _COMMANDS.items():
        out.write(f"  {name:<8} {usage}\n")
    out.write("  //text   sends /text\n  Ctrl-C   ends the answer, Ctrl-D leaves, Alt-Enter begins another line\n")
    out.flush()


def _show(conversation: Conversation, rest: str) -> None:
    process: ProcessInfo = conversation.context.client.call(PROC_INFO, Pid(conversation.pid))
    rows: list[tuple[str, object]] = [
        ("process", process.pid),
        ("model", process.model),
        ("context", f"{process.context_tokens} of {process.context_limit} tokens"),
        ("generated", f"{process.generated_tokens} tokens"),
    ]
    sampling = {**msgspec.structs.asdict(process.sampling or Sampling()), **conversation.sampling}
    rows += [(key, value) for key, value in sampling.items() if value not in (None, ())]
    for name, value in rows:
        conversation.context.out.write(f"  {name:<18} {value}\n")
    conversation.context.out.flush()


def _set(conversation: Conversation, rest: str) -> None:
    key, _, value = rest.partition(" ")
    conversation.sampling |= parse_setting(key, value.strip())


def parse_setting(key: str, value: str) -> dict[str, Any]:
    """A field of `Sampling` with its value, checked. Raises EINVAL."""
    if key not in Sampling.__struct_fields__:
        known = ", ".join(Sampling.__struct_fields__)
        raise LlmosError(Code.EINVAL, f"/set: no setting `{key}`", hint=f"there are {known}")
    raw: Any = [value] if key == "stop" else value
    try:
        sampling = msgspec.convert({key: raw}, Sampling, strict=False)
    except msgspec.ValidationError:
        raise LlmosError(Code.EINVAL, f"/set: `{value}` does not fit {key}", hint="/show shows what is set") from None
    return {key: list(sampling.stop) if key == "stop" else getattr(sampling, key)}


def _fork(conversation: Conversation, rest: str) -> None:
    forked: Forked = conversation.context.client.call(PROC_FORK, Fork(conversation.pid, detached=True))
    conversation.note(f"forked as process {forked.pids[0]}: `attach {forked.pids[0]}` talks to it")


def _save(conversation: Conversation, rest: str) -> None:
    from llmos_shell.shell.tables import to_json
    from llmos_shell.shell.transcripts import render_transcript

    if not rest:
        raise LlmosError(Code.EINVAL, "/save: FILE is missing", hint="/save talk.txt, or talk.json")
    transcript = conversation.transcript()
    text = to_json(transcript) if rest.endswith(".json") else render_transcript(transcript.turns) + "\n"
    try:
        with open(rest, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise LlmosError(Code.EIO, f"/save: {rest}: {(error.strerror or str(error)).lower()}") from None
    conversation.note(f"saved in {rest}")


_COMMANDS: dict[str, tuple[str, Callable[[Conversation, str], None]]] = {
    "/bye": ("end the conversation (so does Ctrl-D after `chat`)", _bye),
    "/detach": ("leave it running; `attach PID` comes back", _detach),
    "/fork": ("copy it into a process of its own", _fork),
    "/save": ("FILE: write what was said, as JSON if FILE ends with .json", _save),
    "/set": ("KEY VALUE: change a setting from the next message on", _set),
    "/show": ("show process, context and settings", _show),
    "/help": ("this list", _help),
}

NAMES = tuple(_COMMANDS)
"""All of them."""
