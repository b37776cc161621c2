"""Manuals of the commands that write texts and compare things."""

from __future__ import annotations

from llmos_shell.shell.command import Example, Manual, Operand, Option

_TESTS = """\
Of files:

  -e FILE   exists               -f FILE   is a plain file
  -d FILE   is a folder          -L FILE   is a symbolic link (also -h)
  -s FILE   is not empty         -r, -w, -x FILE   may be read, written, run
  -p FILE   is a named pipe      -S FILE   is a socket
  -b, -c FILE   is a device      -u, -g, -k FILE   has that mode bit
  -O FILE   is yours             -t N      descriptor N is a terminal
  A -nt B   A is newer           A -ot B   A is older
  A -ef B   are the same file

Of texts:

  -n TEXT   is not empty         -z TEXT   is empty
  A = B     are equal (also ==)  A != B    differ
  A < B     comes before, by code points; quote the sign. So does A > B

Of whole numbers:

  -eq  -ne  -lt  -le  -gt  -ge   equal, not equal, less, less or equal, greater …

`! EXPRESSION` is true if the expression is not. `-a` (and), `-o` (or) and parentheses join expressions; `&&` and `||` \
between commands are safer, because words may look like operators. A single word is true unless it is empty."""

_TEST_STATUSES = (("0", "it is true"), ("1", "it is false"), ("2", "it is no expression"))

MANUALS = (
    Manual(
        "echo",
        "print words and a line end",
        synopsis=("echo [-neE] [WORD…]",),
        options=(
            Option(("-n",), "no line end"),
            Option(
                ("-e",),
                r"interpret escapes: `\n` `\t` `\\` `\a` `\b` `\e` `\f` `\r` `\v` `\0NNN` `\xHH`, and "
                r"`\c`: end here",
            ),
            Option(("-E",), "do not interpret escapes; so it is at first"),
        ),
        operands=(Operand("WORD", "printed with spaces between", required=False, many=True),),
        description="For text that may begin with `-` or hold backslashes, `printf '%s\\n' TEXT` is safer.",
        examples=(
            Example('echo "one  two" three', "quotes keep spaces", output="one  two three"),
            Example(r"echo -e 'a\tb'", "with a tab", output="a\tb"),
        ),
        see_also=("printf",),
        exit_statuses=(("0", "success"), ("1", "it could not be written")),
    ),
    Manual(
        "printf",
        "print words by a format",
        synopsis=("printf [-v NAME] FORMAT [WORD…]",),
        options=(Option(("-v",), "put the result into a variable instead of printing it", "NAME", "variable"),),
        operands=(
            Operand("FORMAT", "text with escapes as in `echo -e`, and places for words"),
            Operand("WORD", "what is put into the places", required=False, many=True),
        ),
        description=(
            "The places are\n\n"
            "  %s  the word as it is            %b  … its escapes interpreted\n"
            "  %q  … quoted for the shell       %c  its first character\n"
            "  %d %i  a whole number            %o %u %x %X  … octal, unsigned, hexadecimal\n"
            "  %e %f %g %E %F %G  a decimal     %%  a percent sign\n\n"
            "with flags, width and precision between, as in C: `%-10s` `%05d` `%.2f`; a `*` takes the width from a "
            "word. The format is used again until no word is left; words that are missing are empty, or 0."
        ),
        examples=(
            Example(r"printf '%s\n' *.md", "one name per line", output="notes.md\nreport.md"),
            Example(r"printf '%-8s|%5.1f\n' speed 12.345", "columns", output="speed   | 12.3"),
            Example("printf -v name 'part-%03d' 7; echo \"$name\"", "into a variable", output="part-007"),
        ),
        exit_statuses=(("0", "success"), ("1", "a word is no number, or nothing could be written"), ("2", "no FORMAT")),
        see_also=("echo", "read"),
    ),
    Manual(
        "test",
        "compare texts and numbers, and look at files; the answer is the exit status",
        synopsis=("test EXPRESSION", "[ EXPRESSION ]"),
        description=_TESTS,
        examples=(
            Example('test -s notes.txt && echo "there is something in it"', "a file", "there is something in it"),
            Example('n=5; if [ "$n" -gt 3 ]; then echo many; fi', "a number", output="many"),
            Example('[ -z "$answer" ] && echo empty', "quote variables, for they may be empty", output="empty"),
        ),
        exit_statuses=_TEST_STATUSES,
        see_also=("[", "language", "exit-statuses"),
    ),
    Manual(
        "[",
        "the same as `test`, with a closing bracket",
        synopsis=("[ EXPRESSION ]",),
        description="`test` lists the expressions. The last word must be `]`; spaces around both brackets matter.",
        examples=(Example('[ "$((2 + 2))" = 4 ] && echo yes', "a condition", output="yes"),),
        exit_statuses=_TEST_STATUSES,
        see_also=("test",),
    ),
)
