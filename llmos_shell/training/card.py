"""The model card of `tiny` and the figures it states."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos_shell.training.measure import Score


@dataclass(frozen=True)
class Figure:
    """A measured share of exactly right answers."""

    asked: int
    right: int
    percent: float

    @classmethod
    def of(cls, score: Score) -> Figure:
        """From a measurement."""
        return cls(score.asked, score.asked - len(score.wrong), score.percent)

    def __str__(self) -> str:
        return f"{self.percent} % ({self.right} of {self.asked})"


@dataclass(frozen=True)
class Facts:
    """What the card states."""

    parameters: int
    bytes: int
    vocabulary: int
    examples: int
    epochs: int
    intents: int
    templates: int
    held_out_templates: int
    seen: Figure
    held_out: Figure
    fresh: Figure


def as_json(facts: Facts) -> dict[str, Any]:
    """The facts for `evaluation.json`."""
    return asdict(facts)


def text(facts: Facts) -> str:
    """The card, in Markdown."""
    return f"""# tiny

The shell's assistant of LLMasOS: it turns a question into a command line of this shell, or into one sentence about how
to do it. It is useful for nothing else.

- **Licence**: MIT. Made by this project's own code from data this project generates; nothing was downloaded.
- **Architecture**: Llama family, {facts.parameters:,} parameters, vocabulary {facts.vocabulary:,} (byte-fallback BPE).
- **File**: GGUF, Q8_0, {facts.bytes:,} bytes.
- **Remake it**: `make tiny`, or `python -m llmos_shell.training.tiny` (needs the `train` extra). Seeded: the
  same machine, libraries and number of threads give the same file.

## How it is used
The program takes numbers, names, files, signals and quoted texts out of the question and shows the model places
(`kill process<n1>`). The model completes `<ask> …<do>` greedily under a grammar that admits only known command lines
and answers for the slots that are there. The program puts the slots back, quoted. Nothing is ever run by itself.

## Training data
{facts.intents} intents with {facts.templates + facts.held_out_templates:,} phrasing templates, written for this project
(`llmos_shell/training/phrasings.toml`). Each template stands for many sentences: synonyms, optional parts, frames such
as "how do I …", random names and numbers. {facts.examples:,} examples, {facts.epochs} passes, with typing mistakes,
filler words and telegraphic style mixed in.

## How good it is
Exactly the right command line or answer, through the whole pipeline, measured with llama.cpp on this file:

| questions | right |
|---|---|
| held-out phrasings | {facts.held_out} |
| fresh questions | {facts.fresh} |
| phrasings seen in training | {facts.seen} |

*Held-out phrasings*: {facts.held_out_templates} templates, about 17 % of each intent, chosen by hash, never trained
on in any form; each is expanded {facts.held_out.asked // facts.held_out_templates} times with random synonyms, frames
and values. Synonym lists and frames are shared with training. The errors on an earlier split were looked at and the
templates extended; then this split was drawn, once. With this many templates the figure is good to about three points.
*Fresh questions*: written by hand before the templates were, by the same author, in `llmos_shell/training/fresh.toml`;
some have several equally right answers. The mistakes made on them were not looked at before the model was final.
No training prompt equals a prompt of either set. A question counts only when the whole line is right.

## Limits
English only. A prompt for `run` must be quoted (or follow "ask the model to …" or a colon). It knows one step at a
time, no pipes or scripts, and not the state of the system. What it proposes can be wrong, now and then even a `kill`
where none was meant: read it before pressing Enter. In a plain chat, without the program's slots, it can only say what
needs no names or numbers.
"""
