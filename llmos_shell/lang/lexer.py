"""Characters to tokens, and here-documents. It does not know reserved words or commands: that is the parser's.

The lexer holds one current token (`kind`, `value`, `word`, `start`); `advance` reads the next.
"""

from __future__ import annotations

import re

from llmos_shell.lang.ast import DoubleQuoted, Literal, Part, SingleQuoted, Word
from llmos_shell.lang.errors import Source
from llmos_shell.lang.words import WordReader

EOF, NEWLINE, OPERATOR, IO_NUMBER, WORD = range(5)

_SKIP = re.compile(r"(?:[ \t]+|\\\n)*(?:#[^\n]*)?")
_TOKEN = re.compile(
    r"(\n)"
    r"|(&&|\|\||\|&|;;&|;;|;&|<<-|<<<|<<|>>|<&|>&|<>|>\||&>>|&>|[|&;()]|[<>](?!\())"
    r"|([0-9]+)(?=(?:\\\n)*[<>](?!\())"
    r"|([^\s\\'\"`$|&;<>()~\0]+)(?=[ \t\n|&;)]|[<>](?!\()|(?<![@?*+!])\(|\Z)"
)
_OPERATORS = ("&&", "||", "|&", ";;&", ";;", ";&", "<<-", "<<<", "<<", ">>", "<&", ">&", "<>", ">|", "&>>", "&>")
_BEGINNINGS = frozenset(operator[:length] for operator in _OPERATORS for length in range(2, len(operator) + 1))


class Lexer(WordReader):
    """Reads the tokens of `text` from `position` on."""

    def __init__(self, source: Source, text: str, position: int, base: int, depth: int, more: bool) -> None:
        super().__init__(source, text, position, base, depth, more)
        self.kind = NEWLINE
        self.value = ""
        self.word: Word | None = None
        self.start = position

    # -- tokens ------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Makes the next token the current one."""
        text = self.text
        start = self.start = _SKIP.match(text, self.position).end()  # type: ignore[union-attr]
        match = _TOKEN.match(text, start)
        if match is None:
            if start >= len(text):
                self.kind, self.value, self.word, self.position = EOF, "", None, start
                if self.pending:
                    self.read_here_documents()
                return
            self.kind = WORD
            self.word = self.read_word(start)
            self.value = self.word.literal() or ""
            return
        which = match.lastindex
        self.position = match.end()
        if which == 4:
            self.kind = WORD
            self.value = value = match.group(4)
            self.word = Word([Literal(value, start + self.base)], start + self.base)
        elif which == 2:
            self.kind, self.value, self.word = OPERATOR, match.group(2), None
            if self.text.startswith("\\\n", self.position):
                self._join_operator()
        elif which == 1:
            self.kind, self.value, self.word = NEWLINE, "\n", None
            if self.pending:
                self.read_here_documents()
        else:
            self.kind, self.value, self.word = IO_NUMBER, match.group(3), None

    def _join_operator(self) -> None:
        """Adds to an operator what is on the next line, behind a backslash."""
        while True:
            at = self.past_joins(self.position)
            longer = self.value + self.text[at : at + 1]
            if longer == self.value or longer not in _BEGINNINGS:
                return
            self.value, self.position = longer, at + 1

    def take(self, start: int, end: int) -> None:
        """The text from `start` to `end` counts as one token, whatever was read in it; the next one is behind it."""
        self.position = end

    def reread(self, position: int) -> None:
        """Goes back to a place in the current token, to read it in another way."""
        self.pending = [each for each in self.pending if each[0].offset < position + self.base]
        self.position = position

    # -- here-documents ----------------------------------------------------------------------------------------------

    def read_here_documents(self) -> None:
        """Reads the bodies of the pending here-documents, which begin at the current position."""
        pending, self.pending = self.pending, []
        for redirect, delimiter, quoted in pending:
            body, start = self._here_lines(delimiter, redirect.operator == "<<-", quoted), self.position
            self.position = self._here_end
            part: Part
            if quoted:
                part = SingleQuoted(body, start + self.base)
            else:
                part = DoubleQuoted(self._here_parts(body, start), start + self.base)
            redirect.operator = "<<"
            redirect.target = Word([part], start + self.base)

    def _here_lines(self, delimiter: str, strip: bool, quoted: bool) -> str:
        """The lines before the delimiter; `_here_end` is set to where the line after it begins.

        Unless quoted, a backslash at the end of a line joins the next one to it, also where that is the delimiter.
        """
        text, at, lines = self.text, self.position, []  # type: tuple[str, int, list[str]]
        while at < len(text):
            end = self._line_end(at, joined=not quoted)
            line = text[at:end].lstrip("\t") if strip else text[at:end]
            if not quoted and end == len(text) and _ends_in_backslash(line):
                line = line[:-1]
            at = end + 1
            if (line if quoted else line.replace("\\\n", "")) == delimiter:
                break
            lines.append(line)
        else:
            if self.more:
                self.fail(f"here-document is not ended by {delimiter!r}", len(text), incomplete=True)
        self._here_end = min(at, len(text))
        return "".join(f"{line}\n" for line in lines)

    def _line_end(self, at: int, *, joined: bool) -> int:
        """Where the line at `at` ends, with `joined` together with those that backslashes join to it."""
        text = self.text
        while (newline := text.find("\n", at)) >= 0:
            if not joined or not _ends_in_backslash(text[at:newline]):
                return newline
            at = newline + 1
        return len(text)

    def _here_parts(self, body: str, start: int) -> list[Part]:
        inner = self.nested(0, body, self.base + start, more=False)
        return inner.read_here_body()


def _ends_in_backslash(line: str) -> bool:
    """Whether a backslash that is not itself escaped ends the line."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1
