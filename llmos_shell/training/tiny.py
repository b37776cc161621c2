"""Makes the built-in model `tiny`: data, tokenizer, training, GGUF, measurement and model card, in one command.

    python -m llmos_shell.training.tiny [--output FOLDER] [--threads N] [--examples N] [--epochs N]

Everything is seeded. The same machine and number of threads give the same weights; elsewhere floating point may differ.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import llmos_shell
from llmos_shell.training import card, data, export, fit, measure, phrases, tokens
from llmos_shell.training.network import Shape

VOCABULARY = 1536
HELD_OUT_PER_TEMPLATE = 4
_TOKENIZER_TEXTS = 50_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the whole recipe."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    phrasings, fresh = phrases.load(), data.fresh()
    held_out = data.held_out_pairs(phrasings, HELD_OUT_PER_TEMPLATE)
    avoid = data.prompts_to_avoid(held_out, fresh)
    pairs = [(p.prepared.prompt, p.target or "") for p in data.training_pairs(phrasings, options.examples, avoid)]
    _say(f"{len(pairs)} pairs, {len(set(pairs))} distinct, {time.monotonic() - started:.0f} s")
    tokenizer = tokens.learn((text for pair in pairs[:_TOKENIZER_TEXTS] for text in pair), VOCABULARY)
    network = fit.fit(tokenizer, Shape(len(tokenizer)), pairs, fit.Plan(epochs=options.epochs), _say)
    minutes = (time.monotonic() - started) / 60
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "tiny.gguf"
    export.write(path, network, tokenizer)
    assistant = measure.Assistant(path, options.threads)
    facts = card.Facts(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        bytes=path.stat().st_size,
        vocabulary=len(tokenizer),
        examples=len(pairs),
        epochs=options.epochs,
        templates=sum(len(intent.chosen(held_out=False)) for intent in phrasings.intents),
        held_out_templates=sum(len(intent.chosen(held_out=True)) for intent in phrasings.intents),
        intents=len(phrasings.intents),
        seen=card.Figure.of(measure.score_pairs(assistant, data.seen_pairs(phrasings, 1))),
        held_out=card.Figure.of(measure.score_pairs(assistant, held_out)),
        fresh=card.Figure.of(measure.score_fresh(assistant, fresh)),
    )
    (options.output / "evaluation.json").write_text(json.dumps(card.as_json(facts), indent=2) + "\n", encoding="utf-8")
    (options.output / "CARD.md").write_text(card.text(facts), encoding="utf-8")
    _say(f"held out {facts.held_out.percent} %, fresh {facts.fresh.percent} %, {minutes:.0f} min to train")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m llmos_shell.training.tiny", description="Makes the model `tiny`.")
    home = Path(llmos_shell.__file__).parent / "models" / "builtin"
    parser.add_argument("--output", type=Path, default=home, help="folder for the model and its card")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--examples", type=int, default=150_000)
    parser.add_argument("--epochs", type=int, default=2)
    return parser.parse_args(arguments)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
