"""What is printed parses to the same tree, and so does what is laid out anew; and no text, however mangled, raises
anything but `ShellSyntaxError`.

The property tests try the same few examples each time; `LLMOS_FUZZ=number` (`make fuzz`) tries that many random ones.
"""

import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos_shell.lang.ast import Sequence
from llmos_shell.lang.errors import ShellSyntaxError
from llmos_shell.lang.layout import format_text
from llmos_shell.lang.parser import parse
from llmos_shell.lang.printer import one_line, program_text

FUZZ = int(os.environ.get("LLMOS_FUZZ") or 0)

SPEC = Path(__file__).parents[2] / "spec"

PIECES = [
    "echo", "a", "x=1", "x+=b", "$x", "${x}", "${x:-", "${x##*/}", "${#x}", "}", "{", "(", ")", "((", "$((", "))", "$(",
    "`", "'", '"', "\\", "\\\n", "\n", " ", "  ", "\t", ";", ";;", ";&", "&", "&&", "|", "||", "!", "<", ">", ">>",
    "2>&1", "<<E", "<<-'E'", "\nE\n", "E", "<<<", "&>", ">|", "<&-", "3<", "if", "then", "elif", "else", "fi", "while",
    "until", "do", "done", "for", "in", "case", "esac", "x)", "function", "f()", "#c", "$", "$'", "$\"", "~", "~/a",
    "*", "?", "[a-z]", "? why", "=", "1", "+", "é", "\x01", "%", "${", "$@", "$*", "$1", "$10", "-", ":", "$!",
    "[[", "]]", "=~", "==", "-f", "((", "((i", "<(", ">(", "|&", ";;&", "a=(", "a+=(", "[k]=", "a[1]=", "a[i+1]+=",
    "${a[", "]", "${!", "${a[@]}", "${x/", "/", "//", "${x:", "${x^^", "${x@Q}", "${#a[*]}", "{a,b}", "{1..3}", "..",
    ",", "declare", "{fd}>", "select", "@(", "!(", "^(a|b)", "$\\\n", "${\\\n", "&\\\n", "for ((", "i<3;", "^",
    "@", "[",
]  # fmt: skip


def examples(number):
    """Marks a property test: so many examples, always the same ones, or the big form."""

    def mark(test):
        form = settings(max_examples=FUZZ or number, deadline=None, derandomize=not FUZZ, print_blob=True)
        return pytest.mark.fuzz(form(test))

    return mark


PARAMETERS = [
    "${a[1]}", "${a[i + 1]}", '"${a[@]}"', "${a[*]}", "${#a[@]}", "${!a[@]}", "${!v}", "${!v*}", "${!a[0]}",
    '${m["a b"]}', "${m[$k]}", "${x:1}", "${x: -2:1}", "${x:i?1:2:${#x}}", "${@:1:2}", "${a[@]: -1}", "${x/a/b}",
    "${x//'/'/\\/}", "${x////-}", "${x/#~/b c}", '"${x/%"$y"}"', "${x^}", "${x^^[a-c]}", "${x,,}", "${a[@]@Q}", "{a,b}",
    "{1..9..2}", "{a,{b,c}}", "$'\\x41\\'\\cA'", "@", "+",
]  # fmt: skip


def opaque(strategy):
    """The same, without its description, which grows beyond measure in recursive strategies."""

    @st.composite
    def text(draw):
        return draw(strategy)

    return text()


NAMES = st.sampled_from(["a", "foo", "x1", "b_c"])
PLAIN = st.sampled_from(["a", "b.c", "-l", "x=1", "*", "[ab]?", "{", "}", "if", "é", "a#b", "~", "~/x", "1", "\\ "])
QUOTED = st.sampled_from(["$x", "${y}", "$1", "${10}", "$@", '"$*"', "'it s'", "\\$", "$'\\n'", '"a $b"', "${#z}"])
EXPANSIONS = st.sampled_from(
    ["$((x + 1))", "$(( (a) * $b ))", "${x:-a b}", '"${x:-"q"}"', "${x#*'a'}", "`echo \\`b\\``", *PARAMETERS]
)


@cache
def programs():
    """Well-formed programs, by grammar."""
    return st.recursive(NAMES, commands, max_leaves=6)


def commands(inner):
    """Commands in which such ones stand."""
    inner = opaque(inner)
    word = opaque(words(inner))
    array = opaque(arrays(word))
    return st.one_of(
        simple(word),
        simple(word),
        joined(inner),
        conditions(word).map(lambda text: f"[[ {text} ]]"),
        array,
        array.map(lambda text: f"declare -a {text}"),
        st.tuples(NAMES, word, word).map(lambda t: f"{t[0]}[{t[1]}]={t[2]}"),
        st.sampled_from(["((i++))", "((a[i] = (1 + 2) * $x))", "((i <\n3))", "a[1 + 2]=x b"]),
        blocks(inner),
        loops(inner, word),
        st.tuples(NAMES, inner).map(lambda t: f"{t[0]} <<E\nbody ${t[0]} $({t[1]}\n) \\$\nE"),
        NAMES.map(lambda text: f"{text} <<-'E' | cat\n\t$raw\n\tE"),
    )


def words(inner):
    part = st.one_of(
        PLAIN,
        QUOTED,
        EXPANSIONS,
        inner.map(lambda text: f"$({text}\n)"),
        inner.map(lambda text: f'"$({text}\n)"'),
        st.tuples(st.sampled_from("<>"), inner).map(lambda t: f"{t[0]}({t[1]}\n)"),
    )
    return st.lists(part, min_size=1, max_size=3).map("".join)


def simple(word):
    redirect = st.one_of(
        st.tuples(st.sampled_from([">", "2>", "<", ">>", "<<<", "&>", "3<>", ">|"]), word).map(" ".join),
        st.sampled_from(["2>&1", ">&-", "<&3", "{fd}>f", "{fd}<&-"]),
    )
    return st.tuples(
        st.lists(st.tuples(NAMES, word).map("=".join), max_size=2),
        NAMES,
        st.lists(st.one_of(word, redirect), max_size=3),
    ).map(lambda each: " ".join([*each[0], each[1], *each[2]]))


def arrays(word):
    element = st.one_of(word, st.tuples(word, word).map(lambda t: f"[{t[0]}]={t[1]}"))
    return st.tuples(NAMES, st.sampled_from(["", "+"]), st.lists(element, max_size=3)).map(
        lambda t: f"{t[0]}{t[1]}=({' '.join(t[2])})"
    )


def conditions(word):
    """What stands in `[[ ]]`."""
    single = st.one_of(
        word,
        st.tuples(st.sampled_from(["-f", "-z", "-v"]), word).map(" ".join),
        st.tuples(word, st.sampled_from(["==", "!=", "<", ">", "-lt", "-nt"]), word).map(" ".join),
        st.tuples(word, st.sampled_from(["@(a|$x)b", "!(a)", "?(a b)", "*.[ch]"])).map(" == ".join),
        st.tuples(word, st.sampled_from(["^(a|b c)+$", "[[:alpha:]]$", '"$x"', "a\\.b", "$x"])).map(" =~ ".join),
    )
    nested = st.recursive(
        single,
        lambda t: st.one_of(
            t.map(lambda text: f"! {text}"),
            t.map(lambda text: f"( {text} )"),
            st.tuples(t, st.sampled_from([" && ", " || ", " ||\n"]), t).map("".join),
        ),
        max_leaves=4,
    )
    return opaque(nested)


def joined(inner):
    """Lists, pipelines, and what stands before or behind a command."""
    return st.one_of(
        st.tuples(inner, st.sampled_from([" | ", " && ", " || ", "; ", "\n", " & "]), inner).map("".join),
        st.tuples(inner, st.sampled_from([" # c\n", "\n\n  #c 'd\n\n", " | # e\n", "&&\\\n"]), inner).map("".join),
        st.tuples(inner, inner).map(" |& ".join),
        inner.map(lambda text: f"! {text}"),
        inner.map(lambda text: f"{text} &"),
    )


def blocks(inner):
    """Groups, subshells, functions, conditions."""
    return st.one_of(
        inner.map(lambda text: f"{{ {text}\n}} >f"),
        inner.map(lambda text: f"( {text}\n)"),
        st.tuples(inner, inner, inner).map(lambda t: f"if {t[0]}\nthen {t[1]}\nelse {t[2]}\nfi"),
        st.tuples(NAMES, inner).map(lambda t: f"{t[0]}() {{ {t[1]}\n}}"),
        st.tuples(NAMES, inner).map(lambda t: f"function {t[0]} {{ {t[1]}\n}}"),
    )


def loops(inner, word):
    """Loops, `select` and `case`."""
    return st.one_of(
        st.tuples(inner, inner).map(lambda t: f"while {t[0]}\ndo {t[1]}\ndone"),
        st.tuples(NAMES, st.lists(word, max_size=2), inner).map(
            lambda t: f"for {t[0]} in {' '.join(t[1])}; do {t[2]}\ndone"
        ),
        inner.map(lambda text: f"for ((i = 0; i < $(echo 3); i++)); do {text}\ndone"),
        st.tuples(NAMES, word, inner).map(lambda t: f"select {t[0]} in {t[1]}; do {t[2]}\ndone"),
        st.tuples(word, word, inner).map(lambda t: f"case {t[0]} in {t[1]}|b) {t[2]}\n;; *) ;& esac"),
        st.tuples(word, inner).map(lambda t: f"case {t[0]} in @(a|b)c|!(x y)) {t[1]}\n;;& *) esac"),
    )


def check(text: str) -> None:
    """Either wrong, or the same after printing."""
    try:
        tree = parse(text, ask=True)
    except ShellSyntaxError as error:
        lines = text.split("\n")
        position = error.position
        assert 0 <= position.offset <= len(text)
        assert 1 <= position.line <= len(lines)
        assert 1 <= position.column <= len(lines[position.line - 1]) + 1
        return
    printed = program_text(tree)
    assert parse(printed, ask=True) == tree, printed
    assert program_text(parse(printed, ask=True)) == printed
    one_line(tree)
    for item in tree.items:
        assert parse(program_text(item), ask=True).items == [item]
    check_layout(text, tree)


def check_layout(text: str, tree: Sequence) -> None:
    """In canonical layout nothing but blanks has changed, the meaning is the same, and so is the layout of that."""
    formatted = format_text(text)
    assert parse(formatted, ask=True) == tree, formatted
    assert without_blanks(formatted) == without_blanks(text), formatted
    assert format_text(formatted) == formatted, formatted


def without_blanks(text: str) -> str:
    return re.sub(r"[\s\\]", "", text)


@examples(150)
@given(programs())
def test_printed_programs_are_the_same(text):
    check(text)


@examples(300)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_token_soup(text):
    check(text)


@examples(150)
@given(st.text(max_size=60))
def test_any_text(text):
    check(text)


@examples(150)
@given(st.data())
def test_mutated_programs(data):
    text = data.draw(programs())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 3))
        text = text[:at] + data.draw(st.sampled_from(["", *PIECES])) + text[at + length :]
    check(text)


@examples(100)
@given(programs(), st.data())
def test_every_beginning_is_complete_incomplete_or_wrong(text, data):
    beginning = text[: data.draw(st.integers(0, len(text)))]
    with suppress(ShellSyntaxError):
        parse(beginning, more=True)


@pytest.mark.parametrize(
    "text",
    [
        "foo &?", "a; ? b", ">f ?x | cat", "? why\na & ?",  # a command that begins with `?` is no question
        "a ~\\\n", "a ~\\\nb/x", "${x:-~\\\n}", "${x:-\\\n~/a}",  # a joined line hides no tilde
        "${#-\\\n}", '"${##\\\n}"', "${x\\\n}", "${#\\\n}",
        "a <<E\nb\\\nE\nc\nE\n", "a <<EOF\nb\nEO\\\nF\n", "a <<E\nb\\", "a <<E\nb\\\n", "a <<E\nb\\\\\nE\n",
        "a <<-E\n\tb\\\n\tc\n\tE\n", "a <<X\n$(b '\nEO\\\nF\n')\nX\n",
        "a <<E\n$(b <<G)\nE\n", "a <<E\n$(b <<G)\nG\nE\n", "f() { a\n} <<E\nb\nE\n",
        "a $(($(b <<E) ) )\nc\nE\n",  # read as arithmetic first
        "f() in <&-", "f() function g { a; }",
        "a[$\\\n1 + 2]=x b", "a\\\n[1 + 2]=x", "a[1 +\\\n 2]=x b",  # neither does it hide an index
        "a[$((x + 1))$(a[\n)]=a", "a[ |\n]=x", "a[ &&\n]=x b", "b $(a[ ||\n]=1)",  # nor does another command end one
        "foo=\\\n()", "foo=\\\n(a $(a=\\\n()\n))",  # nor an array
        "{ a[1 + 2]\\\n=x b\n} >f", "a[1 2]+\\\n=x",
        "if a \\&\nthen b\nfi", "while a\\&; do b \\&\ndone",  # these end in no `&`
        "a[<<<[[1 + 2]=x b", "a[\\\n 2]=x", "a=([ # c\n 2]=x)", "a=([\n2]=x [3]=y)",  # indexes or not
        "f() { a; } |& b", "a[$(b)]=c", "${x:\\\n-1}", "[[ $a =~ \\$ ]]", "[[ a =~ $ ]]",
    ],
)  # fmt: skip
def test_cases_found(text):
    check(text)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a ~\\\nb/x", "a ~b/x"),
        ("${#-\\\n}", "${#-}"),
        ("a <<E\nb\\\nE\nc\nE\n", "a <<F\nbE\nc\nF\n"),
        ("a <<EOF\nb\nEO\\\nF\nc", "a <<E\nb\nE\nc"),
        ("a <<-E\n\tb\\\n\tc\n\tE\n", "a <<E\nb\tc\nE\n"),
        ("a <<E\nb\\", "a <<E\nb\nE\n"),
        ("a <<E\n$(b <<G)\nE\nc", "a <<E\n$(b <<G\nG\n)\nE\nc"),
        ("a $(($(b <<E) ) )\nc\nE\n", "a $( ( $(b <<E\nc\nE\n) ) )"),
    ],
)
def test_joined_lines_and_here_documents(text, same):
    assert parse(text) == parse(same)


@pytest.mark.parametrize("text", ["f() in <&-", "f() function g { a; }", "f() ! a"])
def test_what_is_no_body_of_a_function(text):
    with pytest.raises(ShellSyntaxError):
        parse(text)


@pytest.mark.parametrize("path", sorted(SPEC.glob("*.test")), ids=lambda path: path.stem)
def test_spec_scripts(path):
    for block in path.read_text().split("#### ")[1:]:
        check("\n".join(line for line in block.split("\n")[1:] if not line.startswith("## ")))


@pytest.mark.parametrize(
    "text",
    ["(" * 5000, "$(" * 5000, "${x:-" * 5000, "$((" * 5000, '"$(' * 3000, "{ " * 5000, "if " * 5000, "`" * 4999,
     "! " * 20000, "a && " * 20000, "a | " * 20000, "f() " * 5000, "case x in (" * 2000, "$((" + "(" * 100000,
     "while x; do " * 3000, "`\\`\\\\\\`" * 500, "$(($(( " * 200 + "1" + ")) )" * 200],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_deep_nesting_is_no_crash(text):
    with pytest.raises(ShellSyntaxError):
        parse(text)


@pytest.mark.parametrize("text", ["<<E " * 3000, "x=" * 50000, "a;" * 5000, "\\a" * 5000])
def test_long_lines(text):
    check(text)


def test_long_programs_are_no_recursion():
    text = " && ".join(["a"] * 5000) + "\n" + " | ".join(["b"] * 5000) + "\n" + "\n".join(["c"] * 5000)
    tree = parse(text)
    assert isinstance(tree, Sequence)
    assert parse(program_text(tree)) == tree
