"""Expansion and arithmetic with an environment of plain data."""

import operator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.lang import patterns
from llmos_shell.lang.arithmetic import evaluate, wrap
from llmos_shell.lang.errors import ExpansionError
from llmos_shell.lang.expansion import Expander
from llmos_shell.lang.parser import parse
from llmos_shell.lang.quoting import decode_ansi


class World:
    """An environment without a system behind it."""

    def __init__(self, *parameters, nounset=False, noglob=False, tree=(), **variables):
        self.variables = dict(variables)
        self.parameters = list(parameters)
        self.nounset = nounset
        self.noglob = noglob
        self.tree = set(tree)

    def lookup(self, name):
        if name.isdigit() and 0 < int(name) <= len(self.parameters):
            return self.parameters[int(name) - 1]
        return self.variables.get(name)

    def assign(self, name, value):
        self.variables[name] = value

    def positional(self):
        return self.parameters

    def substitute(self, body):
        return "out put"

    def home(self, user):
        return {"": "/home/me", "you": "/home/you"}.get(user)

    def listdir(self, path):
        prefix = "" if path == "." else path.rstrip("/") + "/"
        return {each[len(prefix) :].split("/")[0] for each in self.tree if each.startswith(prefix)}

    def exists(self, path):
        path = path.rstrip("/")
        return any(each == path or each.startswith(path + "/") for each in self.tree)


def fields(text, world=None):
    return Expander(world or World()).fields(parse(f"x {text}").items[0].words[1:])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$a'$a'\"$a\"", ["one", "two$aone two"]),
        ("x$(cmd)y", ["xout", "puty"]),
        ('"$(cmd)"', ["out put"]),
        ("~ ~you ~nobody a~", ["/home/me", "/home/you", "~nobody", "a~"]),
        ("$((1+2))$((3))", ["33"]),
        ("$unset \"$unset\" ''", ["", ""]),
        ("${unset:-$a}", ["one", "two"]),
        ('"${unset:-$a}"', ["one two"]),
        ("${a+x y}", ["x", "y"]),
    ],
)
def test_fields(text, wanted):
    assert fields(text, World(a="one two")) == wanted


@given(st.lists(st.text(max_size=5), max_size=5))
def test_quoted_at_gives_the_parameters(parameters):
    assert fields('"$@"', World(*parameters)) == parameters


@given(st.text(alphabet="ab :,\t\n", max_size=12), st.sampled_from([" \t\n", ":", ": ", ",: \t", ""]))
def test_splitting_loses_nothing_but_separators(value, ifs):
    found = fields("$v", World(v=value, IFS=ifs, noglob=True))
    assert "".join(found) == "".join(char for char in value if char not in ifs)
    assert fields('"$v"', World(v=value, IFS=ifs)) == [value]


@given(st.text(max_size=8), st.text(max_size=8))
def test_quoted_patterns_match_only_themselves(text, other):
    assert patterns.matches(patterns.quote(text), text)
    assert patterns.matches(patterns.quote(text), other) == (text == other)


@given(st.text(alphabet="ab*?[]!-\\^:", max_size=10), st.text(alphabet="ab*?[]!-\\^", max_size=8))
def test_any_pattern_can_be_matched_and_trimmed(pattern, text):
    patterns.matches(pattern, text)
    for how in ("#", "##", "%", "%%"):
        rest = patterns.trim(how, text, pattern)
        assert text.endswith(rest) if how[0] == "#" else text.startswith(rest)
    assert len(patterns.trim("#", text, pattern)) >= len(patterns.trim("##", text, pattern))
    assert len(patterns.trim("%", text, pattern)) >= len(patterns.trim("%%", text, pattern))


def test_pathnames():
    world = World(tree=["a.c", "b.c", ".h.c", "d/x.c", "d/e/y.c", "d2/z"])
    assert fields("*.c d*/*.c .*.c *.none */e '*'.c", world) == [
        "a.c", "b.c", "d/x.c", ".h.c", "*.none", "d/e", "*.c",
    ]  # fmt: skip


def test_unset_is_an_error_under_nounset():
    with pytest.raises(ExpansionError, match="nope"):
        fields("$nope", World(nounset=True))
    assert fields('${nope-x} "$@"', World(nounset=True)) == ["x"]


def test_read_access_does_not_change_the_words():
    words = parse("x $a *").items[0].words
    world = World(a="1", tree=["f"])
    first = Expander(world).fields(words)
    world.variables["a"], world.tree = "2", {"g"}
    assert (first, Expander(world).fields(words)) == (["x", "1", "f"], ["x", "2", "g"])


NUMBERS = st.integers(-(2**63), 2**63 - 1)


@given(NUMBERS, NUMBERS, st.sampled_from(["+", "-", "*", "&", "|", "^", "<", ">", "<=", ">=", "==", "!="]))
def test_arithmetic_is_that_of_64_bits(left, right, symbol):
    function = {
        "+": operator.add, "-": operator.sub, "*": operator.mul, "&": operator.and_, "|": operator.or_,
        "^": operator.xor, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
        "==": operator.eq, "!=": operator.ne,
    }[symbol]  # fmt: skip
    world = World(a=str(left), b=str(right))
    assert evaluate(f"a {symbol} b", world) == wrap(int(function(left, right)))


@given(NUMBERS, NUMBERS.filter(bool))
def test_division_truncates(left, right):
    world = World(a=str(left), b=str(right))
    quotient, remainder = evaluate("a / b", world), evaluate("a % b", world)
    assert wrap(quotient * right + remainder) == left
    assert abs(remainder) < abs(right)
    assert remainder == 0 or (remainder < 0) == (left < 0)


@given(st.text(alphabet="0123456789abx+-*/%()<>=!&|^~?:, #'", max_size=15))
def test_any_expression_is_a_number_or_an_error(text):
    with suppress(ExpansionError):
        assert isinstance(evaluate(text, World(a="1", b="a+1", x="x")), int)


@pytest.mark.parametrize(
    "text", ["(" * 5000, "-" * 5000 + "1", "1?" * 3000, "a=" * 3000 + "1", "2**" * 3000 + "2", "~" * 9999]
)
def test_deep_expressions_are_no_crash(text):
    with pytest.raises(ExpansionError):
        evaluate(text, World())


def test_ansi_quotes():
    assert decode_ansi(r"a\tb\n\x41\101é\'\\\e") == "a\tb\nAAé'\\\x1b"
    assert decode_ansi(r"\xff") == "\udcff"
