"""`run --from`: a process that goes on from what another one has in mind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import PROC_SPAWN, PROC_TRANSCRIPT, Pid, Spawn
from llmos_shell.abi.types import Limits, Message, State
from llmos_shell.testing.clients import code_of, info, say, spawn, text_of, wait, wait_for_state, wait_for_tokens
from llmos_shell.testing.daemon import write_models

GREEDY = {"temperature": 0.0}


def turns(client: Any, pid: int) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in client.call(PROC_TRANSCRIPT, Pid(pid)).turns]


def go_on(client: Any, source: int, prompt: str, tokens: int = 20, **fields: Any) -> int:
    return client.call(
        PROC_SPAWN, Spawn(source=source, prompt=prompt, sampling={**GREEDY, "max_tokens": tokens}, **fields)
    ).pid


def begin(client: Any, prompt: str, tokens: int = 20) -> int:
    pid = spawn(client, prompt, sampling={**GREEDY, "max_tokens": tokens})
    wait(client, pid)
    return pid


@pytest.fixture
def counter(llmos_home: Path, tmp_path: Path) -> Path:
    path = tmp_path / "counter"
    write_models(llmos_home, one={"counter": str(path)}, other={"reply": "hello"})
    return path


def test_a_text_goes_on_as_if_it_had_been_one_prompt(counter: Path, client: Any) -> None:
    first = begin(client, "Once upon a time")
    said = text_of(client, first)
    whole = text_of(client, spawn(client, f"Once upon a time{said} And", sampling={**GREEDY, "max_tokens": 20}))
    counter.unlink()
    child = go_on(client, first, " And")
    assert text_of(client, child) == whole
    assert turns(client, child) == [*turns(client, first), ("prompt", " And"), ("completion", whole)]
    row = info(client, child)
    assert (row.recomputed_tokens, row.generated_tokens) == (0, 20)
    assert row.reused_tokens >= info(client, first).context_tokens - 16


def test_a_conversation_goes_on_and_its_source_does_not_notice(counter: Path, client: Any) -> None:
    talk = spawn(client, chat=True, messages=(Message("system", "Be brief."),), sampling={**GREEDY, "max_tokens": 9})
    say(client, talk, "one")
    before = turns(client, talk)
    children = [go_on(client, talk, "two", 9), go_on(client, talk, "two", 9)]
    texts = [text_of(client, child) for child in children]
    assert turns(client, talk) == before
    assert say(client, talk, "two") == texts[0] == texts[1]
    assert turns(client, children[0]) == turns(client, talk)


def test_in_the_middle_of_an_answer(client: Any) -> None:
    source = spawn(client, "Once", sampling=GREEDY)
    wait_for_tokens(client, source, 10)
    child = go_on(client, source, " And", 5)
    text_of(client, child)
    (prompt, sofar, *rest) = turns(client, child)
    assert prompt == ("prompt", "Once")
    assert [role for role, _ in rest] == ["prompt", "completion"]
    whole = text_of(client, source)
    assert whole.startswith(sofar[1]) and 0 < len(sofar[1]) <= len(whole)


def test_before_the_source_has_begun(client: Any, llmos_home: Path) -> None:
    write_models(llmos_home, slow={"step_seconds": 0.3})
    source = spawn(client, "Once", sampling=GREEDY)
    child = go_on(client, source, " upon", 5)
    text = text_of(client, child)
    assert turns(client, child)[0] == ("prompt", "Once") and turns(client, child)[-1] == ("completion", text)


def test_nothing_said_is_lost_with_the_daemon(counter: Path, daemon: Any, client: Any) -> None:
    first = begin(client, "Once upon a time")
    done = go_on(client, first, " And", detached=True)
    wait(client, done)
    going = go_on(client, done, " then", 4000, detached=True, limits=Limits(tokens=400))
    wait_for_tokens(client, going, 30)
    said = turns(client, done)
    daemon.kill()
    daemon.start()
    with daemon.connect() as again:
        assert turns(again, done) == said
        rest = text_of(again, going)
        assert turns(again, going) == [*said, ("prompt", " then"), ("completion", rest)]
        assert text_of(again, go_on(again, first, " And")) == said[-1][1]


def test_what_cannot_be_gone_on_from(counter: Path, client: Any) -> None:
    first = begin(client, "Once upon a time")
    assert code_of(client, PROC_SPAWN, Spawn(source=9999, prompt="x")) == Code.ESRCH
    assert code_of(client, PROC_SPAWN, Spawn(source=client.session, prompt="x")) == Code.EINVAL
    assert code_of(client, PROC_SPAWN, Spawn(source=first, prompt="x", chat=True)) == Code.EINVAL
    assert code_of(client, PROC_SPAWN, Spawn(source=first)) == Code.EINVAL
    assert code_of(client, PROC_SPAWN, Spawn(source=first, prompt="x" * 4000)) == Code.E2BIG
    with pytest.raises(LlmosError, match=f"process {first} is of another model, one"):
        client.call(PROC_SPAWN, Spawn(source=first, prompt="x", model="other"))


def test_private_ones_share_with_their_children_alone(counter: Path, client: Any) -> None:
    prompt = "a secret that is rather long, and longer than several pages of sixteen"
    secret = client.call(PROC_SPAWN, Spawn(prompt=prompt, chat=True, sampling={"max_tokens": 5}, private=True)).pid
    wait_for_state(client, secret, State.SLEEPING)
    child = go_on(client, secret, " more", 5)
    wait(client, child)
    assert info(client, child).reused_tokens >= 64
    for other in (spawn(client, prompt, limits=Limits(tokens=1)), go_on(client, secret, " more", 5, private=True)):
        wait(client, other)
        assert info(client, other).reused_tokens == 0
