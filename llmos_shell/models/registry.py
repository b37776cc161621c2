"""The models there are: the packaged `models.toml`, overridden and added to by the user's.

Owns names and settings, not weights: whether a file is there and sound is looked at when somebody asks. A mistake in
one entry makes that entry a problem, never the others. A file that is wrong as a whole leaves the packaged models, by
their names; which model is the default cannot be told then.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import Struct

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelEntry, Sampling

PACKAGED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "models.toml")
WEIGHTS_SUFFIX = ".gguf"
MAX_NUMBER = 2**31 - 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}")
_KEYS = {field.name: field for field in msgspec.structs.fields(ModelEntry) if field.name != "name"}
_SAMPLING = {field.name for field in msgspec.structs.fields(Sampling)}


class Listed(Struct, frozen=True):
    """A model, and what is wrong with it: an entry with a `problem` cannot be loaded. `bytes` of the weights, or 0."""

    entry: ModelEntry
    default: bool
    bytes: int = 0
    problem: str = ""


class Registry:
    """The models of one user. Reads the files again when they changed."""

    def __init__(
        self,
        user_file: str | None = None,
        packaged: str = PACKAGED,
        on_problem: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`user_file` None: `models.toml` in the configuration folder. It need not exist.

        `on_problem` is told of each of the `problems` when the files were read.
        """
        self._on_problem = on_problem
        self.user_file = user_file or os.path.join(paths.config_dir(), "models.toml")
        self._files = (packaged, self.user_file)
        self._seen: tuple[tuple[int, int] | None, ...] = ()
        self._entries: dict[str, ModelEntry] = {}
        self._problems: dict[str, str] = {}  # of entries, by name
        self._default = ""
        self._file_problems: tuple[str, ...] = ()
        self._paths: dict[str, str] = {}  # weights named by path so far, by the name they were given

    @property
    def default(self) -> str:
        """The name of the model used when none is named; empty when no file says, or a file is wrong."""
        self._refresh()
        return self._default

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the files as a whole, a line each."""
        self._refresh()
        return self._file_problems

    def resolve(self, name: str = "") -> ModelEntry:
        """The entry of a name, of a path that ends in .gguf, or for "" the default.

        A path gets the file's stem as its name, or where that stands for another file, the path itself; the name then
        stands for it as long as the registry lives. Whether the weights exist is not looked at. Raises ENOENT for an
        unknown name, EINVAL for a broken entry, and for the default when there are `problems`.
        """
        self._refresh()
        if not name and self._file_problems:
            raise LlmosError(Code.EINVAL, self._file_problems[0], hint="mend it, or name a model")
        name = name or self._default
        if name in self._problems:
            raise LlmosError(Code.EINVAL, self._problems[name])
        if name in self._entries:
            return self._entries[name]
        if name in self._paths:
            return ModelEntry(name, self._paths[name])
        if name.endswith(WEIGHTS_SUFFIX):
            return self._anonymous(name)
        raise LlmosError(Code.ENOENT, f"no model {name!r}" if name else "no default model", hint=self._hint(name))

    def has(self, entry: ModelEntry) -> bool:
        """Whether the files say so: another registry, after a restart, finds this entry by its name."""
        self._refresh()
        return self._entries.get(entry.name) == entry

    def listing(self) -> list[Listed]:
        """All entries by name, the broken ones too."""
        self._refresh()
        return [self._listed(name) for name in sorted({*self._entries, *self._problems})]

    def status(self, entry: ModelEntry) -> Listed:
        """The size of an entry's weights, or why they cannot be loaded."""
        size, problem = weights_size(entry.path)
        if not problem and entry.draft and (wrong := weights_size(entry.draft)[1]):
            problem = f"its draft model: {wrong}"
        return Listed(entry, entry.name == self._default, size, problem)

    def _anonymous(self, path: str) -> ModelEntry:
        full = os.path.abspath(os.path.expanduser(path))
        stem = os.path.basename(full).removesuffix(WEIGHTS_SUFFIX)
        taken = stem in self._entries or stem in self._problems or self._paths.get(stem, full) != full
        name = full if taken or not stem else stem
        self._paths[name] = full
        return ModelEntry(name, full)

    def _listed(self, name: str) -> Listed:
        if name in self._problems:
            return Listed(ModelEntry(name, ""), name == self._default, 0, self._problems[name])
        return self.status(self._entries[name])

    def _hint(self, name: str) -> str:
        if self._file_problems:
            return self._file_problems[0]
        near = get_close_matches(name, self._entries, 1)
        known = ", ".join(sorted(self._entries)) or "none"
        return f"did you mean {near[0]}?" if near else f"known: {known}; or give the path of a {WEIGHTS_SUFFIX} file"

    def _refresh(self) -> None:
        seen = tuple(map(_stamp, self._files))
        if seen == self._seen:
            return
        self._entries, self._problems, self._default = {}, {}, ""
        problems: list[str] = []
        for file in self._files:
            try:
                problems += self._read(file)
            except LlmosError as error:
                problems.append(str(error))
        if self._default and self._default not in {*self._entries, *self._problems}:
            problems.append(f"{self.user_file}: default: no model {self._default!r}")
        if problems:
            self._default = ""
        self._file_problems, self._seen = tuple(problems), seen
        for problem in problems:
            self._on_problem(problem)

    def _read(self, file: str) -> list[str]:
        """Takes over a file's entries; returns what is wrong outside of them."""
        table = _load(file)
        problems = [f"{file}: {key}: unknown key" for key in table if key not in ("default", "models")]
        default, models = table.get("default", self._default), table.get("models", {})
        if isinstance(default, str):
            self._default = default
        else:
            problems.append(f"{file}: default: not a text")
        if not isinstance(models, dict):
            return [*problems, f"{file}: models: not a table"]
        for name, settings in models.items():
            self._take(file, name, settings)
        return problems

    def _take(self, file: str, name: str, settings: Any) -> None:
        """Takes over one entry, or its problem; either replaces a former entry of that name."""
        self._entries.pop(name, None)
        self._problems.pop(name, None)
        try:
            self._entries[name] = _entry(file, name, settings)
        except ValueError as error:
            self._problems[name] = f"{file}: models.{name}{error}"


def weights_size(path: str) -> tuple[int, str]:
    """(bytes of a file of weights, why it cannot be read)."""
    if "\0" in path:
        return 0, "a path cannot hold the character 0"
    try:
        if os.path.isdir(path):
            return 0, f"{path} is a folder, not a weights file"
        return os.stat(path).st_size, "" if os.access(path, os.R_OK) else f"{path} cannot be read"
    except FileNotFoundError:
        return 0, f"no such file: {path}"
    except OSError as error:
        return 0, f"{path}: {error.strerror}"


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _load(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as source:
            return tomllib.load(source)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LlmosError(Code.EIO, f"{file}: {error.strerror}") from None
    except RecursionError:
        raise LlmosError(Code.EINVAL, f"{file}: nested too deeply") from None
    except ValueError as error:  # no TOML, not UTF-8, or a number of thousands of digits
        raise LlmosError(Code.EINVAL, f"{file}: {error}") from None


def _entry(file: str, name: str, settings: Any) -> ModelEntry:
    """Raises ValueError with `.KEY: what is wrong`."""
    if not _NAME.fullmatch(name) or name.endswith(WEIGHTS_SUFFIX):
        raise ValueError(": a name is letters, digits and . _ : + -, at most 64, and does not end in .gguf")
    if not isinstance(settings, dict):
        raise ValueError(": not a table")
    for key in settings:
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, 1)
            raise ValueError(f".{key}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
    for key, value in settings.items():
        if (key, value) != ("gpu_layers", "auto"):
            _check(key, value)
    path = os.path.expanduser(settings.get("path", ""))
    if not path:
        raise ValueError(".path: missing")
    folder = os.path.dirname(os.path.abspath(file))
    files = {"path": path, "draft": os.path.expanduser(settings.get("draft", ""))}
    full = {key: os.path.normpath(os.path.join(folder, one)) for key, one in files.items() if one}
    return ModelEntry(name, **{**settings, **full})


def _check(key: str, value: Any) -> None:
    if key == "gpu_layers" and not isinstance(value, int):
        raise ValueError('.gpu_layers: must be a number, or "auto"')
    try:
        msgspec.convert(value, _KEYS[key].type)
    except msgspec.ValidationError as error:
        raise ValueError(f".{key}: {str(error).partition(' - at ')[0].lower()}") from None
    least = {"context": 1, "slots": 1, "pool_tokens": 1, "threads": 1, "gpu_layers": -1}.get(key)
    if least is not None and value < least:
        raise ValueError(f".{key}: must be at least {least}")
    if least is not None and value > MAX_NUMBER:
        raise ValueError(f".{key}: must be at most {MAX_NUMBER}")
    if key == "keep_seconds" and value < 0:
        raise ValueError(".keep_seconds: must be at least 0")
    if key == "gpus" and (any(not 0 <= one <= MAX_NUMBER for one in value) or len(set(value)) < len(value)):
        raise ValueError(".gpus: must be numbers of GPUs, each once")
    if key == "options":
        _check_options(value)
    if key == "sampling":
        _check_sampling(value)


def _check_options(options: dict[str, Any]) -> None:
    """Whether they can be sent to a worker; what they mean is the kernel's to say."""
    try:
        msgspec.msgpack.encode(options)
    except (OverflowError, RecursionError) as error:
        raise ValueError(f".options: {error}") from None


def _check_sampling(values: dict[str, Any]) -> None:
    for key in values:
        if key not in _SAMPLING:
            raise ValueError(f".sampling.{key}: unknown key")
    try:
        msgspec.convert(values, Sampling)
    except msgspec.ValidationError as error:
        raise ValueError(f".sampling: {error}") from None
