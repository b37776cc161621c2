"""Built-ins that declare and remove variables: `declare`, `typeset`, `local`, `export`, `readonly`, `unset`; `let`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from llmos_shell.lang.arithmetic import evaluate
from llmos_shell.lang.errors import ExpansionError
from llmos_shell.lang.printer import program_text
from llmos_shell.lang.quoting import quote_value, quote_word
from llmos_shell.shell.interpreter.arrays import Array, ArrayArgument
from llmos_shell.shell.interpreter.builtins import usage, write
from llmos_shell.shell.interpreter.variables import VALID_NAME

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

_ARGUMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[(.+?)\])?(?:(\+?)=(.*))?\Z", re.DOTALL)
_ELEMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\[(.+)\]\Z", re.DOTALL)
_LETTERS = frozenset("aAilurxgpfF")


class _Options(NamedTuple):
    """What `-` and `+` gave."""

    on: set[str]
    off: set[str]
    arguments: list[str]


def declare(shell: Shell, words: list[str]) -> int:
    """Sets variables and their attributes, in a function local ones unless `-g`; `-p` shows them, `-f` functions."""
    options = _parse(words)
    if options is None:
        return usage(shell, words, f"unknown option; {' '.join(f'-{letter}' for letter in sorted(_LETTERS))} are known")
    if options.on & {"f", "F"}:
        return _show_functions(shell, words, options)
    if "p" in options.on or not options.arguments:
        return _show(shell, words, options)
    local = shell.variables.in_function and "g" not in options.on
    status = 0
    for argument in options.arguments:
        status = _declare(shell, words[0], argument, options, local) or status
    return status


def local(shell: Shell, words: list[str]) -> int:
    """`declare` in a function."""
    if not shell.variables.in_function:
        return usage(shell, words, "works in functions only")
    return declare(shell, words) if len(words) > 1 else 0


def export(shell: Shell, words: list[str]) -> int:
    """Puts variables into the environment of programs; `-n` takes them out."""
    arguments, off = words[1:], False
    while arguments and arguments[0] in ("-n", "-p", "--"):
        off = off or arguments[0] == "-n"
        arguments = arguments[1:]
    if not arguments:
        return _list(shell, "export", shell.variables.exported)
    options = _Options(set() if off else {"x"}, {"x"} if off else set(), arguments)
    return max([_declare(shell, words[0], argument, options, local=False) for argument in arguments])


def readonly(shell: Shell, words: list[str]) -> int:
    """Makes variables read-only."""
    arguments, letters = words[1:], {"r"}
    while arguments and re.match(r"-[paA]+\Z|--\Z", arguments[0]):
        letters |= set(arguments.pop(0)) & {"a", "A"}
    if not arguments:
        return _list(shell, "readonly", shell.variables.readonly)
    options = _Options(letters, set(), arguments)
    return max([_declare(shell, words[0], argument, options, local=False) for argument in arguments])


def unset(shell: Shell, words: list[str]) -> int:
    """Removes variables, elements (`name[index]`), or with `-f` functions."""
    arguments, functions = words[1:], False
    while arguments and arguments[0] in ("-f", "-v", "--"):
        functions = functions or arguments[0] == "-f"
        arguments = arguments[1:]
    for name in arguments:
        element = _ELEMENT.match(name)
        known = shell.variables.is_set(name)
        if functions or (not known and name in shell.functions and "-v" not in words):
            shell.functions.pop(name, None)
        elif element is not None:
            shell.unset_element(element.group(1), element.group(2))
        elif VALID_NAME.match(name):
            shell.variables.unset(name)
        else:
            return usage(shell, words, f"{name}: is no variable's name")
    return 0


def let(shell: Shell, words: list[str]) -> int:
    """Evaluates expressions; status 0 if the last one is not 0."""
    if len(words) < 2:
        return usage(shell, words, "wants an expression")
    value = 0
    for text in words[1:]:
        try:
            value = evaluate(text, shell)
        except ExpansionError as error:
            return shell.complain(f"let: {error}", 1)
    return int(not value)


# -- declaring -------------------------------------------------------------------------------------------------------


def _parse(words: list[str]) -> _Options | None:
    arguments, on, off = words[1:], set(), set()  # type: tuple[list[str], set[str], set[str]]
    while arguments and len(arguments[0]) > 1 and arguments[0][0] in "-+" and type(arguments[0]) is str:
        word = arguments.pop(0)
        if word == "--":
            break
        if not set(word[1:]) <= _LETTERS:
            return None
        (on if word[0] == "-" else off).update(word[1:])
    return _Options(on, off, arguments)


def _declare(shell: Shell, command: str, argument: str, options: _Options, local: bool) -> int:
    """Declares one variable, and gives it its value if there is one."""
    match = _ARGUMENT.match(argument)
    if match is None:
        status = usage(shell, [command], f"{argument}: is no variable's name")
        return 1 if command == "declare" else status
    name, index, append, value = match.groups()
    variables = shell.variables
    if local:
        variables.declare_local(name, fresh=command != "local" or bool(options.on & {"a", "A"}))
    if options.on or options.off:
        _set_letters(shell, name, options)
    if isinstance(argument, ArrayArgument):
        shell.assign_array(name, argument.elements, append=bool(append))
    elif value is not None and index is not None:
        shell.assign_element(name, index, value, append=bool(append))
    elif value is not None:
        (shell.append if append else shell.assign)(name, value)
    if "r" in options.on:
        variables.readonly.add(name)
    if "x" in options.on or "x" in options.off:
        variables.export(name, "x" in options.on)
    return 0


def _set_letters(shell: Shell, name: str, options: _Options) -> None:
    """Attributes that change what is assigned, and whether it is an array."""
    variables = shell.variables
    array = variables.arrays.get(name)
    if "r" in options.off and name in variables.readonly:
        raise ExpansionError(f"{name}: is read-only, and stays so")
    for letter, associative in (("a", False), ("A", True)):
        if letter in options.on and array is not None and array.associative is not associative:
            raise ExpansionError(f"{name}: is already an array of the other kind: unset it first")
        if letter in options.on and array is None:
            value = variables.values.get(name)
            variables.set_array(name, Array(associative, {} if value is None else {"0" if associative else 0: value}))
    known = set(variables.letters.get(name, "")) | (options.on & set("ilu"))
    known -= options.off
    if "u" in options.on:
        known.discard("l")
    elif "l" in options.on:
        known.discard("u")
    if known:
        variables.letters[name] = "".join(sorted(known))
    elif name not in ("RANDOM", "SECONDS"):
        variables.letters.pop(name, None)


# -- showing ---------------------------------------------------------------------------------------------------------


def _list(shell: Shell, command: str, names: set[str]) -> int:
    return write(shell, "".join(_line(shell, command, name) for name in sorted(names)))


def _line(shell: Shell, command: str, name: str) -> str:
    if name in shell.variables.arrays:
        return _declaration(shell, name)
    value = shell.variables.values.get(name)
    return f"{command} {name}\n" if value is None else f"{command} {name}={quote_word(value)}\n"


def _show(shell: Shell, words: list[str], options: _Options) -> int:
    if not options.arguments:
        wanted = options.on - {"p", "g"}
        names = [name for name in shell.variables.names() if wanted <= set(shell.variables.attributes(name))]
        return write(shell, "".join(_declaration(shell, name) for name in names))
    status = 0
    for name in options.arguments:
        if shell.variables.is_set(name) or shell.variables.attributes(name):
            write(shell, _declaration(shell, name))
        else:
            status = shell.complain(f"{words[0]}: {name}: is not set", 1)
    return status


def _declaration(shell: Shell, name: str) -> str:
    """The command that declares a variable as it is."""
    variables = shell.variables
    head = f"declare -{variables.attributes(name) or '-'} {name}"
    array, value = variables.arrays.get(name), variables.values.get(name)
    if array is not None:
        elements = " ".join(f"[{_key(key)}]={_double_quoted(each)}" for key, each in array.items.items())
        return f"{head}=({elements}{' ' if elements and array.associative else ''})\n"
    return f"{head}\n" if value is None else f"{head}={_double_quoted(value)}\n"


def _key(key: int | str) -> str:
    return str(key) if quote_word(str(key)) == str(key) else _double_quoted(str(key))


def _double_quoted(text: str) -> str:
    quoted = quote_value(text)
    if quoted.startswith("$"):
        return quoted
    return '"' + re.sub(r'([\\"`$])', r"\\\1", text) + '"'


def _show_functions(shell: Shell, words: list[str], options: _Options) -> int:
    status = 0
    for name in options.arguments or sorted(shell.functions):
        if name not in shell.functions:
            status = 1
        elif "F" in options.on:
            write(shell, f"{name}\n" if options.arguments else f"declare -f {name}\n")
        else:
            write(shell, program_text(shell.functions[name][0]))
    return status
