"""What exit statuses and the daemon's error codes mean, in words. Data only, but for `describe_status`."""

from __future__ import annotations

_SIGNALS = {
    1: "its terminal or session ended (SIGHUP)",
    2: "it was interrupted with Ctrl-C (SIGINT)",
    3: "it was ended with Ctrl-\\ (SIGQUIT)",
    4: "it ran into an instruction that the processor does not know (SIGILL): it may be built for another one",
    6: "it gave up by itself (SIGABRT), as programs do that find themselves in an impossible state",
    7: "it used memory in a way the hardware refuses (SIGBUS), or a file it had mapped became shorter",
    8: "it calculated something impossible, such as a division by zero (SIGFPE)",
    9: "it was killed (SIGKILL): with `kill -KILL`, or by the system because memory ran out; "
    "for a model process `ps -a` shows which, as its reason",
    11: "it used memory that is not its own (SIGSEGV): a bug in it",
    13: "nobody read its output any more (SIGPIPE), as when `head` has seen enough; mostly harmless",
    14: "its alarm went off (SIGALRM)",
    15: "it was asked to end (SIGTERM), as `kill` does",
    24: "it used more processor time than its limit allows (SIGXCPU)",
    25: "it wrote a larger file than its limit allows (SIGXFSZ)",
    20: "it was stopped with Ctrl-Z: `fg` lets it go on in front, `bg` in the background",
    19: "it was stopped (SIGSTOP): `fg` or `bg` lets it go on",
}

_STATUSES = {
    1: "By convention 1 means that it failed, or that the answer is no.",
    2: "By convention 2 means that it was called wrongly.",
    124: "124 means that a limit was reached: that of `timeout`, or of a model process (`ulimit`).",
    126: "126 means that the command was found but cannot be run.",
    127: "127 means that a command was not found: one that it wanted to run itself, if it is there.",
    255: "255 is what programs such as ssh end with when they could not even begin, and others for any error.",
}


def describe_status(status: int) -> str:
    """A sentence on what a status other than 0 means in general."""
    if status in _STATUSES:
        return _STATUSES[status]
    signal = status - 128
    if 0 < signal < 65:
        return f"{status} is 128 + {signal}: {_SIGNALS.get(signal, f'signal {signal} ended it')}."
    return f"What {status} means is up to the program."


_READS_FILES = (
    "bash cat chmod chown cmp cp diff file grep head less ln ls more mv nano python python3 rm sed sh sort source stat "
    "tail touch vi vim wc"
)
READS_FILES = frozenset(_READS_FILES.split())
"""Programs whose words are mostly names of files."""

RUNS_PROGRAMS = frozenset({"env", "exec", "nice", "nohup", "setsid", "sudo", "time", "timeout", "xargs"})
"""Programs that end with 127 when they do not find what they were to run."""

PROGRAMS = {
    ("grep", 1): "it found no line that matches; that is an answer, not an error",
    ("grep", 2): "a file could not be read, or the pattern is wrong",
    ("rg", 1): "it found no line that matches; that is an answer, not an error",
    ("diff", 1): "the files differ; that is an answer, not an error",
    ("diff", 2): "a file could not be read",
    ("cmp", 1): "the files differ; that is an answer, not an error",
    ("test", 1): "the condition is false",
    ("[", 1): "the condition is false",
    ("[[", 1): "the condition is false",
    ("test", 2): "the condition makes no sense: look at spaces and quotes",
    (
        "[",
        2,
    ): "the condition makes no sense: there must be spaces around `[`, `]` and every word between, and `]` ends it",
    ("false", 1): "that is all it does",
    ("ls", 2): "something that was named on the line could not be opened",
    ("curl", 6): "the name of the host could not be resolved",
    ("curl", 7): "the host did not answer on that port",
    ("curl", 22): "the server answered with an error",
    ("ssh", 255): "the connection could not be made",
    ("timeout", 124): "the time ran out",
    ("make", 2): "a step of a recipe failed; the lines above say which",
    ("python", 1): "the script ended with an exception; the lines above say which",
    ("python3", 1): "the script ended with an exception; the lines above say which",
    ("git", 1): "it failed, or (as `git diff --exit-code`) the answer is no",
    ("git", 128): "it gave up: most often there is no repository here, or the remote cannot be reached",
    ("jobs", 1): "there is no such job",
    ("wait", 127): "there is no such job or process to wait for",
    ("read", 1): "the input ended before a line was complete",
}
"""What particular programs mean by a status."""

CODES: dict[str, tuple[str, str]] = {
    "E2BIG": (
        "The prompt, the answer so far included, has more tokens than the model's context. Shorten it, or use a model "
        "with a longer context: `models -l` shows how long they are, `tokenize` counts tokens.",
        "models -l",
    ),
    "ENOMEM": (
        "There is no memory that could hold it, even with everything else out of the way. `free` shows what there is; "
        'a smaller model, a shorter context or `kv_type = "q8_0"` in models.toml takes less.',
        "free",
    ),
    "EAGAIN": ("Something is full at the moment: wait, or end some processes, and try again.", "ps"),
    "EBUSY": ("It is in use: `ps` shows by whom. Wait, or end those first.", "ps"),
    "ESRCH": ("Processes that have ended are gone from here; `ps` shows the live ones, `ps -a` all.", "ps"),
    "ECHILD": ("It is no process of this shell, or was waited for already.", "ps -a"),
    "ENOENT": ("", ""),
    "EPIPE": (
        "The daemon went away in the middle; processes stay in its journal, and the next command starts it.",
        "status",
    ),
    "EIO": ("A worker, a disk or an engine failed: `dmesg` has the details.", "dmesg | tail"),
    "ENOEXEC": (
        "The weights cannot be run as they are: `models -l` says what is known about the file, `kernels` which kernels "
        "are installed.",
        "kernels",
    ),
    "ENOSYS": ("The engine of this model cannot do that; another kernel may.", "kernels"),
    "ENOSPC": ("The disk is full: nothing is lost, but nothing new can be kept until there is room.", "df -h"),
    "ETIMEDOUT": ("It took longer than the time it was given.", ""),
    "EPERM": ("The process that asked may not do that: its capabilities say what it may.", ""),
    "EACCES": ("It belongs to another user.", ""),
    "EPROTO": (
        "The daemon that runs is of another version than this shell: restart it. Processes stay in the journal.",
        "daemon restart",
    ),
    "EINTR": ("It was interrupted.", ""),
    "EINVAL": ("", ""),
}
"""By error code: what it means here, and a command line that helps to look further."""
