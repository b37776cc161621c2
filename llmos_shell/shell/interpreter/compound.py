"""Executes conditions, loops, `case`, `select` and arithmetic commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from llmos_shell.lang import ast
from llmos_shell.lang.errors import ExpansionError, ShellSyntaxError
from llmos_shell.lang.patterns import matches
from llmos_shell.shell.interpreter.control import LeaveLoop
from llmos_shell.shell.interpreter.environment import ExpansionEnvironment

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.pipelines import Process


class CompoundCommands(ExpansionEnvironment):
    """The part of a shell that decides which commands are executed, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.loops = 0
        self._tested = 0  # inside a condition: `set -e` does not apply
        self._processes: list[Process] = []  # process substitutions of the present command

    def execute(self, node: ast.Command | ast.Sequence) -> int:
        """Executes a command; its status is also `$?` from then on."""
        raise NotImplementedError

    def _checked(self, status: int) -> int:
        """Leaves the shell if `set -e` says so."""
        raise NotImplementedError

    def _expand(self, words: list[ast.Word]) -> list[str]:
        """The words of a command, expanded."""
        raise NotImplementedError

    def end_processes(self, kept: int = 0, *, wait: bool = True) -> None:
        """Ends process substitutions but the first ones."""
        raise NotImplementedError

    def _complain_of(self, error: ExpansionError | ShellSyntaxError) -> int:
        """Shows an error in the text of a program; status 2."""
        raise NotImplementedError

    # -- conditions --------------------------------------------------------------------------------------------------

    def _sequence(self, node: ast.Sequence) -> int:
        status = 0
        for item in node.items:
            status = self.execute(item)
        return status

    def _condition(self, node: ast.Command | ast.Sequence) -> int:
        """Executes what is allowed to fail."""
        self._tested += 1
        try:
            return self.execute(node)
        finally:
            self._tested -= 1

    def _if(self, node: ast.If) -> int:
        for condition, body in node.branches:
            if self._condition(condition) == 0:
                return self._sequence(body)
        return self._sequence(node.otherwise) if node.otherwise is not None else 0

    def _while(self, node: ast.While) -> int:
        status = 0
        self.loops += 1
        try:
            while True:
                try:
                    if (self._condition(node.condition) == 0) is node.until:
                        return status
                    status = self._sequence(node.body)
                except LeaveLoop as leave:
                    if self._leaves(leave):
                        return 0
                    status = 0
        finally:
            self.loops -= 1

    def _leaves(self, leave: LeaveLoop) -> bool:
        """Whether a loop is left; passes on what means an outer one."""
        leave.levels -= 1
        if leave.levels and self.loops > 1:
            raise leave
        return not leave.again

    def _round(self, body: ast.Sequence) -> int | None:
        """One round of a loop: the status of its body, None when the loop is left."""
        try:
            return self._sequence(body)
        except LeaveLoop as leave:
            return None if self._leaves(leave) else 0

    def _for(self, node: ast.For) -> int:
        processes = len(self._processes)
        try:
            return self._each(node, self._values(node))
        finally:
            if len(self._processes) > processes:
                self.end_processes(processes)

    def _values(self, node: ast.For | ast.Select) -> list[str]:
        return list(self.parameters) if node.words is None else self._expand(node.words)

    def _each(self, node: ast.For | ast.Select, values: Iterable[str]) -> int:
        """Executes the body with each value in turn."""
        status = 0
        self.loops += 1
        try:
            for value in values:
                self.assign(node.name, value)
                left = self._round(node.body)
                if left is None:
                    return 0
                status = left
        finally:
            self.loops -= 1
        return status

    def _for_arithmetic(self, node: ast.ForArithmetic) -> int:
        self.current = node
        if self._calculate(node.start) is None:
            return self._checked(1)
        status = 0
        self.loops += 1
        try:
            while True:
                going = self._calculate(node.condition) if node.condition.word.parts else 1
                if not going:
                    return self._checked(1) if going is None else status
                left = self._round(node.body)
                if left is None:
                    return 0
                status = left
                if self._calculate(node.step) is None:
                    return self._checked(1)
        finally:
            self.loops -= 1

    def _calculate(self, expression: ast.Arithmetic) -> int | None:
        """An expression's value; None when it has none, which is said."""
        text = self._expander.string(expression.word)
        if self.options.xtrace:
            from llmos_shell.shell.interpreter.trace import trace

            trace(self.shell, f"(({text}))")
        try:
            return self._expander.calculate(expression, text)
        except ExpansionError as error:
            self._complain_of(error)
            return None

    def _arithmetic_command(self, node: ast.ArithmeticCommand) -> int:
        self.current = node
        status = int(not self._calculate(node.expression))
        self.pipe_statuses = None
        return self._checked(status)

    def _conditional(self, node: ast.Conditional) -> int:
        from llmos_shell.shell.interpreter.conditional import holds

        self.current = node
        status = holds(self.shell, node.test)
        self.pipe_statuses = None
        return self._checked(status)

    def _select(self, node: ast.Select) -> int:
        from llmos_shell.shell.interpreter.menu import choose

        return self._each(node, choose(self.shell, self._values(node)))

    def _case(self, node: ast.Case) -> int:
        text = self._expander.string(node.word)
        falling = False
        status = 0
        for arm in node.arms:
            if falling or self._fits(arm, text):
                status = self._sequence(arm.body)
                falling = arm.end == ";&"
                if arm.end == ";;":
                    return status
        return status

    def _fits(self, arm: ast.CaseArm, text: str) -> bool:
        return any(matches(self._expander.pattern(pattern), text, extended=True) for pattern in arm.patterns)
