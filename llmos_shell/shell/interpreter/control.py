"""How control leaves the ordinary order of execution. None of these are errors, so none is an `Exception`."""

from __future__ import annotations


class ControlFlow(BaseException):
    """What all of these have in common."""


class ExitShell(ControlFlow):
    """`exit`, or a failure under `set -e`: the (sub)shell ends with this status."""

    def __init__(self, status: int) -> None:
        self.status = status


class ReturnFromFunction(ControlFlow):
    """`return`."""

    def __init__(self, status: int) -> None:
        self.status = status


class LeaveLoop(ControlFlow):
    """`break` or `continue`, `levels` loops up."""

    def __init__(self, levels: int, again: bool) -> None:
        self.levels = levels
        self.again = again  # `continue`: the outermost of them goes on


class WaitInterrupted(ControlFlow):
    """A signal with a trap came during `wait`. Raised by its handler in the main thread."""

    def __init__(self, number: int) -> None:
        self.number = number


class StopRequested(ControlFlow):
    """Ctrl-Z while a built-in command runs in the foreground. Raised by the SIGTSTP handler in the main thread.

    It passes through the command, which must not swallow it. The interpreter stops the model processes that the
    command announced with `Context.track`, and enters a stopped job; `fg` follows their output again, from where
    `Context.reached` said the terminal had got to.
    """
