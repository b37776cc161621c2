"""Finds what the assistant copies from a question: numbers, models, files, signals, jobs, quoted texts. Pure."""

# ruff: noqa: RUF001 - people type typographic quotes

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_PLACES = 3
"""Slots of one kind that are taken out; more stay in the text."""


@dataclass(frozen=True)
class Slot:
    """A part of the question that is copied: its place, span in the question, and value."""

    kind: str
    number: int  # from 1, among the slots of this kind
    start: int
    end: int
    value: str
    unit: str = ""  # word that stays in the text, e.g. `seconds`

    @property
    def place(self) -> str:
        """What stands for it, e.g. `<n1>`."""
        return f"<{self.kind}{self.number}>"


_SIGNALS = {"1": "HUP", "2": "INT", "9": "KILL", "15": "TERM", "18": "CONT", "19": "STOP"}
_NAMES = "HUP|INT|KILL|TERM|STOP|CONT"
_NUMERALS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_WORDS = {word: str(number) for number, word in enumerate(_NUMERALS, 2)}
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_FAMILIES = (
    "llama|qwen|mistral|mixtral|gemma|phi|smollm|tinyllama|tinystories|stories|deepseek|falcon|pythia|gpt|granite|olmo"
)
_ENDINGS = "txt|md|json|jsonl|csv|tsv|log|out|py|sh|llmos|toml|yaml|yml|html|xml|pdf|tex|c|h|rs|go|js|ini|conf|dat|text"

_STRING = re.compile(r'"([^"]+)"|“([^”]+)”|«([^»]+)»|`([^`]+)`|(?<!\w)\'([^\']+)\'(?!\w)|(?<!\w)‘([^’]+)’')
_MODEL = re.compile(
    rf"(?<![\w./~-])(?:[\w.~/-]+\.gguf|(?:{_FAMILIES})(?![a-z])[\w.:-]*\w|(?:{_FAMILIES})(?![a-z])"
    r"|(?=[\w.:-]*\d)(?=[\w.:]*[a-z])(?!\d+[a-z]{1,7}\b|pid)[a-z\d]+(?:[-.:_][\w]+)+)(?![\w/])",
    re.IGNORECASE,
)
_NAMED_MODEL = re.compile(r"\b(?:model (?:named|called)|(?:un)?load(?! up))\s+([\w.:-]*\w)\s*[.!?]*$", re.IGNORECASE)
_NOT_MODELS = re.compile(
    r"a|an|another|it|them|model|models|something|this|that|one|some|up|please|now|memory|file|"
    r"all|everything|help|command|manual|usage|options|flags|syntax|docs|documentation|do|mean|work",
    re.IGNORECASE,
)
_FILE = re.compile(
    rf"(?<![\w.~/-])(?:~?/[\w./-]*|~(?!\w)|\.\.?/[\w./-]*|\w[\w.-]*/[\w./-]*|[\w-][\w.-]*\.(?:{_ENDINGS})(?!\w))(?<![.])"
)
_SIGNAL = re.compile(
    rf"(?i:\bsig-?({_NAMES})\b)|(?i:\bsignal\s+({_NAMES}|1|2|9|15|18|19)\b)"
    rf"|(?i:(?<=\bkill )-({_NAMES}|9|15)(?!\S))|\b({_NAMES})\b"
)
_JOB = re.compile(r"(?i:\bjob\s+(?:number\s+|no\.?\s+)?[#%]?|(?<!\w)%)(\d+)(?!\w)")
_DURATION = re.compile(
    r"(?<![\w.])(\d+)\s*(?:(s)(?:ec(?:ond)?s?)?|(m)(?:in(?:ute)?s?)?|(h)(?:(?:ou)?rs?)?)\b", re.IGNORECASE
)
_NUMBER = re.compile(
    r"(?<![\w.,])(?:(?:pid|proc|process|job|task|p)[=:#]?)?"
    r"((?:(?:minus|negative)\s+|(?<![\w)])[-+])?\d+(?:,\d{3})*(?:\.\d+)?)(?!\w)",
    re.IGNORECASE,
)
_NUMERAL = re.compile(rf"\b({'|'.join(_WORDS)})\b", re.IGNORECASE)
_TAIL = re.compile(
    r"(?<=\w):\s+(\S+\s+\S.*?)\s*$"
    r"|^\s*(?:(?:please|can you|could you)\s+)?(?:ask|tell|have|let|make|get)\s+(?:the\s+)?(?:model|llm|ai)\s+"
    r"(?:to\s+)?((?!(?:to|a|an|the|some|my|this|something|about|for|with|questions|answer|complete|continue|do|process)\b)"
    r"\S+\s+\S.*?)\s*$",
    re.IGNORECASE,
)
_FOLDER = re.compile(
    r"\b(?:folder|directory|dir)\s+(?:called|named)\s+([\w-]+)|^\s*cd\s+(?:to\s+|into\s+)?([\w-]+)\s*$"
    r"|\b(?:to|into|enter|open)\s+the\s+([\w-]+)\s+(?:folder|directory|dir)\b",
    re.IGNORECASE,
)
_NOT_FOLDERS = re.compile(
    r"a|an|another|the|this|that|my|home|parent|upper|higher|outer|enclosing|current|working|"
    r"present|previous|last|up|back|different|some|other|to|into|dot|new",
    re.IGNORECASE,
)


def find_slots(question: str, models: Sequence[str] = ()) -> tuple[Slot, ...]:
    """The parts of the question that are copied, in order."""
    found: list[tuple[int, int, str, str, str]] = []
    for start, end, kind, value, unit in _finds(question, models):
        if value and all(end <= taken[0] or start >= taken[1] for taken in found):
            found.append((start, end, kind, value, unit))
    counts: dict[str, int] = {}
    slots = []
    for start, end, kind, value, unit in sorted(found):
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= MAX_PLACES:
            slots.append(Slot(kind, counts[kind], start, end, value, unit))
    return tuple(slots)


def _finds(question: str, models: Sequence[str]) -> Iterator[tuple[int, int, str, str, str]]:
    """Start, end, kind, value and unit of what looks like a slot; earlier ones win over overlapping later ones."""
    known = {name.lower(): name for name in models}
    for found in _STRING.finditer(question):
        value = next(group for group in found.groups() if group)
        kind = "m" if value.lower() in known else "f" if _FILE.fullmatch(value) else "s"
        yield *found.span(), kind, known.get(value.lower(), value), ""
    for name in sorted(models, key=len, reverse=True):
        for found in re.finditer(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", question, re.IGNORECASE):
            yield *found.span(), "m", name, ""
    for found in _TAIL.finditer(question):
        group = 1 if found.group(1) else 2
        yield *found.span(group), "s", found.group(group), ""
    for found in _SIGNAL.finditer(question):
        bare = found.group(4)
        name = next(group for group in found.groups() if group).upper()
        if not (bare and question.isupper()):
            yield *found.span(), "g", _SIGNALS.get(name, name), ""
    for found in _JOB.finditer(question):
        yield *found.span(1), "j", f"%{found.group(1)}", ""
    for found in _MODEL.finditer(question):
        yield *found.span(), "m", found.group(), ""
    for found in _NAMED_MODEL.finditer(question):
        if not _NOT_MODELS.fullmatch(found.group(1)) and not found.group(1).isdigit():
            yield *found.span(1), "m", found.group(1), ""
    for found in _FILE.finditer(question):
        yield *found.span(), "f", found.group(), ""
    for found in _FOLDER.finditer(question):
        value = next(group for group in found.groups() if group)
        if not _NOT_FOLDERS.fullmatch(value):
            yield found.start(found.lastindex or 0), found.end(found.lastindex or 0), "f", value, ""
    for found in _DURATION.finditer(question):
        unit = next(group for group in found.groups()[1:] if group).lower()
        yield *found.span(), "n", str(int(found.group(1)) * _SECONDS[unit]), "seconds"
    for found in _NUMBER.finditer(question):
        value = re.sub(r"(?i)(minus|negative)\s+", "-", found.group(1)).replace(",", "").removeprefix("+")
        yield *found.span(1), "n", value, ""
    for found in _NUMERAL.finditer(question):
        yield *found.span(), "n", _WORDS[found.group().lower()], ""
