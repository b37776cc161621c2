"""Messages between the daemon and a worker, over a socketpair, framed as in `wire`.

The worker handles messages strictly in order, between two steps, but for `Tokenize`, which it answers at any time. So
the daemon may send `Export`, `Free`, `Open` and `Run` back to back, without waiting for answers: the image is written
before the cells are reused.

A `seq` is a handle chosen by the daemon, never used twice in a worker's life; the worker maps it to an engine slot.
Late messages about a freed handle are simply ignored by the daemon. All positions and counts are tokens.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from llmos_shell.abi.types import Message, Sampling, TokenLogprob

# -- daemon → worker -------------------------------------------------------------------------------------------------


class Load(Struct, frozen=True, tag="load"):
    """The first message: load this model. Answered by `Ready` or `Failed`."""

    protocol: int
    path: str
    context: int | None = None  # longest sequence; None: what the weights were trained for
    kv_type: str = "f16"
    layout: Literal["auto", "shared", "split"] = "auto"
    slots: int | None = None
    pool_tokens: int | None = None
    threads: int | None = None
    gpu_layers: int = 0  # the last ones, the output counted as one; -1: all
    gpu_split: tuple[int, ...] = ()  # of these, how many go to each GPU the worker sees; (): as the kernel likes
    options: dict[str, Any] = {}
    draft: str = ""  # weights of a smaller model of the same vocabulary, which guesses tokens; "": none
    room: int | None = None  # bytes that the KV pool is planned in, with the weights; None: as many as are free


class Tokenize(Struct, frozen=True, tag="tokenize"):
    """Turns text, or messages rendered with the chat template, into tokens. Answered by `Tokens` with the same id.

    With `text` the tokens are those of the text (with BOS and the like when `special`). With `messages` and
    `known` 0 they are those of the whole rendered conversation up to where the assistant speaks. With `known` = k > 0
    the first k messages are in the context already, the last of them an answer as it was generated (without its
    end-of-turn token): the tokens are what must be appended; where the template does not allow that (it
    rewrites earlier turns), they are those of the whole conversation and `Tokens.whole` is set.
    """

    id: int
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    known: int = 0
    special: bool = True  # add BOS where the model wants it, and read special tokens in text from templates


class Fence(Struct, frozen=True, tag="fence"):
    """Answered by `Fenced` in its turn: the worker has heard, and said, everything before."""

    id: int


class CopyOf(Struct, frozen=True, tag="copy"):
    """KV of the first `tokens` tokens of another open sequence."""

    seq: int
    tokens: int


class ImageFile(Struct, frozen=True, tag="image"):
    """KV from an image written by `Export`."""

    path: str


class Open(Struct, frozen=True, tag="open"):
    """Creates a sequence with all tokens known so far. Answered by `Opened`.

    The KV of a prefix comes from `source` (unusable images count as none), the rest is prefilled when it runs.
    `turn` is the index of the first token generated in the present turn, so `tokens[turn:]` were sampled already: the
    text decoder, stop strings, grammar and token limit pick up from there, and text emitted for them is not repeated.
    It sleeps at first when `idle` (a chat between turns).
    """

    seq: int
    tokens: tuple[int, ...]
    turn: int
    sampling: Sampling  # with a seed
    source: CopyOf | ImageFile | None = None
    idle: bool = False


class Feed(Struct, frozen=True, tag="feed"):
    """Begins the next turn of a sequence: keep the first `keep` tokens (None: all), append these."""

    seq: int
    tokens: tuple[int, ...]
    sampling: Sampling
    keep: int | None = None


class Grant(Struct, frozen=True, array_like=True):
    """Leave for a sequence to run until its context, the token just sampled included, has `limit` tokens.

    At the limit it pauses, and `Step.pressure` names it, once per value of the limit.
    """

    seq: int
    limit: int


class Run(Struct, frozen=True, tag="run"):
    """Replaces the run set: these sequences, in this order, each up to its limit.

    A step decodes every sequence that is ready and prefills at most `prefill_budget` tokens, in this order. Takes
    effect at the next step. An engine that does not mix the two decodes so many steps between two that prefill. News of
    a step that nobody can act on may wait so long for company: short steps need not wake the daemon each.
    """

    order: tuple[Grant, ...]
    prefill_budget: int
    hold_seconds: float = 0.0
    prefill_spacing: int = 1


class Interrupt(Struct, frozen=True, tag="interrupt"):
    """What follows cannot wait for a step of prompts: one under way is given up, and computed again later.

    With `can_interrupt`. Acted upon as it arrives, before messages that were sent before it.
    """


class Export(Struct, frozen=True, tag="export"):
    """Writes a sequence's KV and tokens to an image file. Answered by `Exported`."""

    seq: int
    path: str


class Free(Struct, frozen=True, tag="free"):
    """Forgets a sequence and its cells; no answer."""

    seq: int


class Truncate(Struct, frozen=True, tag="truncate"):
    """Keeps the first `tokens` tokens of an idle sequence (as a cached prefix, say); no answer."""

    seq: int
    tokens: int


class Shift(Struct, frozen=True, tag="shift"):
    """Forgets `discard` tokens after the first `keep`; what follows moves up. Answered by `Opened`.

    An engine that can move KV keeps that of the rest, else it is computed again. Its grant ends, which was for a longer
    context: it runs when a later `Run` names it.
    """

    seq: int
    keep: int
    discard: int


class Resize(Struct, frozen=True, tag="resize"):
    """Gives the model another KV pool; sequences that are still open are gone. Answered by `Resized`."""

    pool_tokens: int
    slots: int
    layout: Literal["shared", "split"]


class Close(Struct, frozen=True, tag="close"):
    """Release everything and exit with status 0. End of file on the socket means the same."""


# -- worker → daemon -------------------------------------------------------------------------------------------------


class Hello(Struct, frozen=True, tag="hello"):
    """The worker's first message, before `Load`."""

    protocol: int
    pid: int
    kernel: str


class ModelInfo(Struct, frozen=True):
    """What a loaded engine is and can do."""

    fingerprint: str  # of weights, kernel, KV type and layout: an image with another one is not restored
    context: int  # longest sequence
    trained_context: int
    vocabulary: int
    page_tokens: int
    pages: int  # in the pool
    slots: int  # sequences that can be open at once
    layout: Literal["shared", "split"]  # split: every slot owns pages / slots pages, and copies share nothing
    kv_bytes_per_token: int
    max_batch: int  # most tokens per step, over all rows
    threads: int
    has_chat_template: bool
    can_fork: bool = True
    can_export: bool = True
    can_constrain: bool = False
    most_guesses: int = 0  # logits a step can give beyond one per sequence, of an engine that can truncate
    can_shift: bool = False  # move KV to other positions
    can_resize: bool = False  # its KV pool, without loading the weights again
    any_layout: bool = False  # images made in one layout are good in the other, and with any number of slots
    can_interrupt: bool = False  # end a step early, within a fraction of what it takes
    mixes: bool = True  # a step of prompts and decoding rows takes no longer than one of each
    has_gradients: bool = False
    gpu: bool = False  # computes on a GPU, at least in part
    knows_gpus: bool = True  # False: the kernel was built without support for them
    longest_piece_bytes: int = 0  # of text one token can stand for, so that no text has fewer tokens; 0: not known
    chat_stop: tuple[str, ...] = ()  # stop strings that keep it from speaking for the user in a conversation
    description: str = ""
    weights: str = ""  # fingerprint of the weights alone: tokens of equal ones mean the same

    @property
    def page_bytes(self) -> int:
        """KV of one page."""
        return self.page_tokens * self.kv_bytes_per_token


class LoadProgress(Struct, frozen=True, tag="progress"):
    """How much of the weights has been read, between `Load` and `Ready`."""

    read_bytes: int
    total_bytes: int


class Ready(Struct, frozen=True, tag="ready"):
    """The model is loaded."""

    info: ModelInfo
    seconds: float


class Resized(Struct, frozen=True, tag="resized"):
    """The KV pool is as `info` says, and empty: what was asked for, or with an error what there was."""

    info: ModelInfo
    seconds: float
    code: str = ""
    error: str = ""


class Tokens(Struct, frozen=True, tag="tokens"):
    """Answer to `Tokenize`."""

    id: int
    tokens: tuple[int, ...]
    whole: bool = False
    error: str = ""  # e.g. a template that refuses these messages


class Fenced(Struct, frozen=True, tag="fenced"):
    """Answer to `Fence`."""

    id: int


class Opened(Struct, frozen=True, tag="opened"):
    """A sequence is open; the KV of `reused` tokens was there, the rest must be prefilled. `held` is as in `Row`."""

    seq: int
    reused: int
    note: str = ""  # why an image was not used
    held: str = ""
    seconds: float = 0.0  # that restoring or copying took


class Row(Struct, frozen=True, array_like=True):
    """One token sampled in a step. `text` is what became readable with it: nothing, or more than one token's worth.

    `held` is all that is held back after it because it may begin a stop string. It comes with a later `text` or with
    `Finished`; when the daemon ends the turn, the daemon adds it to the output.
    """

    seq: int
    token: int
    text: str = ""
    logprob: TokenLogprob | None = None
    held: str = ""


class Prefilled(Struct, frozen=True, array_like=True):
    """Prompt tokens computed in a step. `done` of the sequence's `total` tokens are in its KV now."""

    seq: int
    tokens: int
    done: int
    total: int


class Finished(Struct, frozen=True, array_like=True):
    """A turn ended (`Reason` eos, stop, length or context); the sequence stays open, idle. `text` is held-back text.

    An end-of-turn token is not kept: it is neither a `Row` nor in the sequence. With reason `stop` the text up to the
    stop string has been emitted, the stop string itself never is, and its tokens stay in the sequence.
    """

    seq: int
    reason: str
    text: str = ""


class Step(Struct, frozen=True, tag="step"):
    """One step: what was sampled and computed, in `seconds` of wall time."""

    rows: tuple[Row, ...]
    prefilled: tuple[Prefilled, ...]
    finished: tuple[Finished, ...]
    seconds: float
    pressure: tuple[int, ...] = ()  # sequences that stand at their limit


class Exported(Struct, frozen=True, tag="exported"):
    """An image was written (or not: `error`)."""

    seq: int
    path: str
    tokens: int
    bytes: int
    error: str = ""
    seconds: float = 0.0


class Failed(Struct, frozen=True, tag="failed"):
    """A sequence (or with `seq` None the whole worker) cannot go on. `code` is an `errors.Code`."""

    seq: int | None
    code: str
    message: str


class Stats(Struct, frozen=True, tag="stats"):
    """Sent about once a second while stepping, and once when falling idle."""

    steps: int
    decoded_tokens: int
    prefilled_tokens: int
    step_seconds: float  # in all
    engine_seconds: float  # of these, inside the engine
    rss: int
    threads: int
    guessed_tokens: int = 0  # by speculation
    right_tokens: int = 0  # of these, those that were generated


ToWorker = Load | Tokenize | Fence | Open | Feed | Run | Interrupt | Export | Free | Truncate | Shift | Resize | Close
ToDaemon = Hello | LoadProgress | Ready | Resized | Tokens | Fenced | Opened | Step | Exported | Failed | Stats
