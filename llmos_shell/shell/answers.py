"""What a process said, and what that took, as data: `-o json` and `-o jsonl` of `run` and `ask`, and `--best-of`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import PROC_FORK, PROC_INFO, PROC_KILL, Fork, Forked, Kill, Output, Pid, Spawn
from llmos_shell.abi.types import ProcessInfo, Reason, Signal, TokenLogprob
from llmos_shell.shell.generation import ending_with_reader, follow_with_progress, spawn
from llmos_shell.shell.streaming import Followed, follow_output, show_progress
from llmos_shell.shell.tables import total

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmos_shell.shell.command import Context


class Answer(Struct, frozen=True):
    """A process's text and how it ended. `score` is the mean log-probability of its tokens, where they were asked for.

    The probabilities are those of the model itself, before temperature and filters; the end of the text counts as a
    token of it.
    """

    process: ProcessInfo
    text: str
    followed: Followed
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def score(self) -> float | None:
        """None when nothing is known of its tokens."""
        count = len(self.logprobs)
        return sum(each.logprob for each in self.logprobs) / count if count else None

    @property
    def reason(self) -> Reason | None:
        """Why it ended."""
        return None if self.followed.exit is None else self.followed.exit.reason

    @property
    def code(self) -> int:
        """Its exit code."""
        return 0 if self.followed.exit is None else self.followed.exit.code


def read_answer(context: Context, pid: int, on_item: Callable[[Output], None]) -> Answer:
    """Follows a process to its end; `on_item` hears every item too."""

    def follow(take: Callable[[Output], None]) -> Followed:
        def both(item: Output) -> None:
            take(item)
            on_item(item)

        with ending_with_reader(context, pid):
            return follow_with_progress(context, pid, both, logprobs=True)

    return _gather(context, pid, follow)


def _gather(context: Context, pid: int, follow: Callable[[Callable[[Output], None]], Followed]) -> Answer:
    pieces: list[str] = []
    logprobs: list[TokenLogprob] = []

    def take(item: Output) -> None:
        pieces.append(item.text)
        logprobs.extend(item.logprobs)

    followed = follow(take)
    process: ProcessInfo = context.client.call(PROC_INFO, Pid(pid))
    return Answer(process, "".join(pieces), followed, tuple(logprobs))


def describe(answer: Answer, *, logprobs: bool = False) -> dict[str, Any]:
    """What `-o json` shows of an answer."""
    process = answer.process
    return {
        "text": answer.text,
        "reason": answer.reason,
        "code": answer.code,
        "model": process.model,
        "pid": process.pid,
        "seed": process.sampling.seed if process.sampling is not None else None,
        "usage": usage_of([process]),
        **({"logprobs": answer.logprobs} if logprobs and answer.logprobs else {}),
    }


def usage_of(processes: Sequence[ProcessInfo]) -> dict[str, Any]:
    """What processes used together: tokens, seconds of the device, and of the clock from the first start to the end."""
    first = processes[0]
    begun = min(process.started for process in processes)
    seconds = max(process.ended or begun for process in processes) - begun
    generated = sum(process.generated_tokens for process in processes)
    return {
        "prompt_tokens": first.prompt_tokens,
        "cached_tokens": first.reused_tokens,
        "generated_tokens": generated,
        "device_seconds": round(sum(process.device_seconds for process in processes), 6),
        "joules": total(process.joules for process in processes),
        "seconds": round(seconds, 6),
        "first_token_seconds": first.first_token_seconds,
        "tokens_per_second": round(generated / seconds, 3) if seconds > 0 else None,
    }


# -- the best of several -----------------------------------------------------------------------------------------------


class _Begun(Exception):
    """The prompt has been read."""


def best_of(context: Context, request: Spawn, count: int) -> list[Answer]:
    """`count` answers to one prompt, which is read once; best first. Ctrl-C ends all of them.

    The first process reads the prompt; the others are forked from where it ends, with the seeds that follow its own.
    """
    sampling = {**request.sampling, "logprobs": max(1, request.sampling.get("logprobs") or 0)}
    pids = [spawn(context, structs.replace(request, sampling=sampling)).pid]

    def interrupt(presses: int) -> None:
        for pid in pids:
            with suppress(LlmosError):
                context.client.call(PROC_KILL, Kill(pid, Signal.INT if presses < 3 else Signal.KILL))

    def follow(number: int, pid: int) -> Answer:
        with show_progress(context, f"answer {number} of {count}"):
            return _gather(
                context,
                pid,
                lambda take: follow_output(context, pid, logprobs=True, on_item=take, on_interrupt=interrupt),
            )

    try:
        if _has_begun(context, pids[0]):
            fork = Fork(pids[0], count=count - 1, nice=context.nice or None, detached=context.detached, again=True)
            forked: Forked = context.client.call(PROC_FORK, fork)
            pids += forked.pids
            for pid in forked.pids:
                context.track(pid)
        answers = [follow(number, pid) for number, pid in enumerate(pids, 1)]
    except BaseException:
        interrupt(1)
        raise
    return sorted(answers, key=_rank)


def _has_begun(context: Context, pid: int) -> bool:
    """Waits until the prompt has been read; False when the process could not get so far."""

    def look(item: Output) -> None:
        if item.text or item.turn is not None or (item.exit is not None and not item.exit.code):
            raise _Begun

    try:
        follow_with_progress(context, pid, look)
    except _Begun:
        return True
    return False


def _rank(answer: Answer) -> tuple[bool, float, int]:
    """Those that ended well first, then by score, then by PID."""
    score = answer.score
    return answer.code != 0, float("inf") if score is None else -score, answer.process.pid


def describe_best(answers: Sequence[Answer]) -> dict[str, Any]:
    """What `-o json` shows of several: the best one, with the usage of all, and all of them with their scores."""
    usage = usage_of(sorted((answer.process for answer in answers), key=lambda process: process.pid))
    return {**describe(answers[0]), "usage": usage, "candidates": [describe_candidate(answer) for answer in answers]}


def describe_candidate(answer: Answer) -> dict[str, Any]:
    """One of several."""
    return {
        "pid": answer.process.pid,
        "score": answer.score,
        "seed": answer.process.sampling.seed if answer.process.sampling is not None else None,
        "text": answer.text,
        "reason": answer.reason,
        "generated_tokens": answer.process.generated_tokens,
    }
