"""What the assistant can say: command lines with places for slots, and answers in words. Data only.

A place is `<n1>`: a letter for the kind of slot and the position among the slots of that kind in the question.
Kinds: n number, s quoted text, m model, f file or folder, j job, g signal.
"""

from __future__ import annotations

_TOPICS = (
    "ps pstree top kill stop cont nice renice wait jobs fg bg attach log fork models load unload free dmesg time help "
    "exit run chat ask nohup disown ulimit sched kernels status tokenize history ls cd cat pwd"
)
HELP_TOPICS = tuple(_TOPICS.split())
"""Commands that have a help page."""

SORT_KEYS = ("memory", "time", "nice", "tokens", "pid")
POLICIES = ("fair", "fifo")

_PLAIN = (
    "ps",
    "ps -a",
    *(f"ps --sort {key}" for key in SORT_KEYS),
    "ps --json",
    "pstree",
    "top",
    "jobs",
    "fg",
    "bg",
    "models",
    "models -l",
    "free",
    "dmesg",
    "dmesg -f",
    "help",
    "exit",
    "chat",
    "sched",
    *(f"sched set {policy}" for policy in POLICIES),
    "kernels",
    "status",
    "history",
    "ls",
    "cd ..",
    "cd ~",
    "pwd",
    *(f"help {topic}" for topic in HELP_TOPICS),
)

_PID = (
    *("kill", "kill -KILL", "kill -INT", "stop", "cont", "renice 10", "renice -10"),
    *("wait", "attach", "log", "fork", "disown"),
)
"""Commands on a process, named by its PID or as a job."""


FORMS: tuple[str, ...] = (
    *_PLAIN,
    *(f"{command} {place}" for command in _PID for place in ("<n1>", "<j1>")),
    *(f"kill -<g1> {place}" for place in ("<n1>", "<j1>")),
    *(f"{command} <j1>" for command in ("fg", "bg")),
    *(f"{command} <n1> <j1>" for command in ("renice", "fork -n", "ulimit -t", "ulimit -n")),
    *(
        f"{command} {places}"
        for command in ("renice", "fork -n", "ulimit -t", "ulimit -n")
        for places in ("<n1> <n2>", "<n2> <n1>")
    ),
    "load <m1>",
    "unload <m1>",
    "chat <m1>",
    "run <s1>",
    "run <s1> &",
    "run <s1> < <f1>",
    "run <s1> > <f1>",
    "run -m <m1> <s1>",
    "run -m <m1> <s1> &",
    "run -m <m1> <s1> > <f1>",
    "run -m <m1> <s1> < <f1>",
    "run -m <m1> -n <n1> <s1>",
    "run -m <m1> -t <n1> <s1>",
    "run -n <n1> <s1>",
    "run -t <n1> <s1>",
    "nohup run <s1>",
    "time run <s1>",
    "nice -n <n1> run <s1>",
    "tokenize <s1>",
    "cd <f1>",
    "cat <f1>",
)
"""Every command line the assistant can propose."""

UNKNOWN = "I only know the commands of this shell; help lists them."

ANSWERS: dict[str, str] = {
    "kill": "kill PID ends a process; kill -KILL PID ends it at once.",
    "force": "kill -KILL PID ends a process at once.",
    "int": "Ctrl-C interrupts what runs in front; kill -INT PID interrupts any process.",
    "stop": "stop PID pauses a process; cont PID lets it go on.",
    "cont": "cont PID lets a paused process go on.",
    "renice": "renice N PID sets the priority of a process, from -20 (first) to 19 (last).",
    "nice": 'nice -n N run "PROMPT" starts a process with priority N.',
    "wait": "wait PID waits until a process ends.",
    "fg": "fg %N brings a job to the front; jobs lists them.",
    "bg": "bg %N lets a job go on in the background; jobs lists them.",
    "attach": "attach PID connects you to a process or a conversation.",
    "log": "log PID shows what a process was asked and what it said.",
    "fork": "fork PID copies a process; fork -n N PID makes N copies.",
    "load": "load MODEL loads a model; models lists the names.",
    "unload": "unload MODEL frees the memory of a model; its processes are kept.",
    "run": 'run "PROMPT" lets the model complete it; chat starts a conversation.',
    "model": 'run -m MODEL "PROMPT" uses that model; models lists the names.',
    "length": 'run -n N "PROMPT" writes at most N tokens.',
    "temperature": 'run -t T "PROMPT" sets the temperature.',
    "background": 'run "PROMPT" & runs in the background; jobs lists what does.',
    "output": 'run "PROMPT" > FILE writes the output to a file.',
    "input": 'run "PROMPT" < FILE reads a file as well.',
    "nohup": 'nohup run "PROMPT" goes on when you leave.',
    "disown": "disown PID lets a process go on when you leave.",
    "limit-time": "ulimit -t SECONDS PID ends a process after that time.",
    "limit-tokens": "ulimit -n TOKENS PID ends a process after that many tokens.",
    "time": "time COMMAND says how long the command took.",
    "tokenize": 'tokenize "TEXT" shows and counts the tokens of a text.',
    "cd": "cd PATH goes to a folder; cd .. goes up one.",
    "cat": "cat FILE shows a file.",
    "sched": "sched set POLICY chooses the scheduling policy: fair or fifo.",
    "unknown": UNKNOWN,
}
"""Answers in words by name, as the model was trained; `unknown` is said to whatever is none of the shell's business."""

SHOWN = {
    ANSWERS["sched"]: "sched set POLICY chooses the scheduling policy: fair, fifo, rr, priority or deadline.",
}
"""What people read in the place of an answer that says less than there is by now."""
