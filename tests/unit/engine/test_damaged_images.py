"""Images that are truncated, flipped, of another model or another format: a worker says so, computes again, goes on.

The small form tries a few hundred; `LLMOS_FUZZ=number` (`make fuzz`) tries that many.
"""

from __future__ import annotations

import io
import itertools
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.types import Sampling
from llmos_shell.engine import images, packed, table
from llmos_shell.engine.arenas import SPARE, Arenas
from llmos_shell.engine.loop import Loop
from llmos_shell.testing.scripted import BOS, load

CASES = int(os.environ.get("LLMOS_FUZZ", "300"))
PROMPT = (BOS, *b"what was said until it was parked, and some more")
GREEDY = Sampling(temperature=0, max_tokens=8)
Damage = Callable[[bytes, random.Random], bytes]


def truncated(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def flipped(data: bytes, chance: random.Random) -> bytes:
    bit = chance.randrange(8 * len(data))
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def longer(data: bytes, chance: random.Random) -> bytes:
    return data + chance.randbytes(chance.randrange(1, 40))


def torn(data: bytes, chance: random.Random) -> bytes:
    """Its end was never written, as when the power goes."""
    end = chance.randrange(len(data) - 1)
    return data[:end] + bytes(len(data) - end)


def remade(**changes: object) -> Damage:
    """Whole, but not what this engine can use."""

    def make(data: bytes, chance: random.Random) -> bytes:
        image, path = images.read(SOUND[0], None), f"{SOUND[0]}.remade"
        given = {name: getattr(image.header, name) for name in image.header.__struct_fields__}
        blob = bytes(image.blob)
        images.write(path, images.Header(**{**given, **changes}), blob)  # type: ignore[arg-type]
        return Path(path).read_bytes()

    return make


def packed_for_a_disk(data: bytes) -> bytes:
    packed.pack(io.BytesIO(data), target := io.BytesIO(), len(data))
    return target.getvalue()


def packed_and(damage: Damage) -> Damage:
    return lambda data, chance: damage(packed_for_a_disk(data), chance)


def and_packed(damage: Damage) -> Damage:
    return lambda data, chance: packed_for_a_disk(damage(data, chance))


def of_another_format(data: bytes, chance: random.Random) -> bytes:
    return images.MAGIC[:-1] + bytes([chance.choice(b"134567890")]) + data[len(images.MAGIC) :]


SOUND: list[str] = []
DAMAGES: dict[str, Damage] = {
    "truncated": truncated,
    "flipped": flipped,
    "longer": longer,
    "torn": torn,
    "another model": remade(fingerprint="another-model/f16"),
    "another KV type": remade(fingerprint="scripted/q8_0"),
    "a newer header": remade(version=images.VERSION + 1),
    "a newer format": of_another_format,
    "packed, truncated": packed_and(truncated),
    "packed, flipped": packed_and(flipped),
    "packed, longer": packed_and(longer),
    "packed, torn": packed_and(torn),
    "truncated, packed": and_packed(truncated),
    "flipped, packed": and_packed(flipped),
    "another model, packed": and_packed(remade(fingerprint="another-model/f16")),
}


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Loop]:
    (tmp_path / SPARE).mkdir()
    monkeypatch.setattr(table, "Arenas", partial(Arenas, least_bytes=1))
    loop = Loop(load(abi.Load(PROTOCOL, "scripted:", options={"context": 200})))
    yield loop
    loop.close()


def text_after(loop: Loop, seq: int, source: abi.ImageFile | None) -> tuple[abi.Opened, str]:
    """What the worker says of the image, and what it generates then."""
    (opened,) = loop.handle(abi.Open(seq, PROMPT, len(PROMPT), GREEDY, source))
    assert isinstance(opened, abi.Opened)
    loop.handle(abi.Run((abi.Grant(seq, 900),), 64))
    text = ""
    while loop.ready:
        for report in loop.step():
            assert isinstance(report, abi.Step)
            text += "".join(row.text for row in report.rows)
    loop.handle(abi.Free(seq))
    return opened, text


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", list(DAMAGES))
def test_a_damaged_image_is_refused_and_the_worker_goes_on(loop: Loop, tmp_path: Path, kind: str) -> None:
    handles = itertools.count(1)
    sound = str(tmp_path / "sound")
    SOUND[:] = [sound]
    seq = next(handles)
    loop.handle(abi.Open(seq, PROMPT, len(PROMPT), GREEDY))
    loop.handle(abi.Run((abi.Grant(seq, len(PROMPT)),), 64))
    while loop.ready:
        loop.step()
    (exported,) = loop.handle(abi.Export(seq, sound))
    assert isinstance(exported, abi.Exported) and not exported.error
    loop.handle(abi.Free(seq))
    data = Path(sound).read_bytes()
    opened, expected = text_after(loop, next(handles), abi.ImageFile(sound))
    assert (opened.reused, opened.note) == (exported.tokens, "") and expected

    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "sound").write_bytes(packed_for_a_disk(data))
    opened, text = text_after(loop, next(handles), abi.ImageFile(str(disk / "sound")))
    assert (opened.reused, opened.note, text) == (exported.tokens, "", expected)

    chance, damage = random.Random(kind), DAMAGES[kind]
    cases = CASES // len(DAMAGES) + 1
    for number in range(cases):
        path = (disk if "packed" in kind else tmp_path) / str(number)
        path.write_bytes(damage(data, chance))
        opened, text = text_after(loop, next(handles), abi.ImageFile(str(path)))
        assert opened.reused == 0 and str(path) in opened.note, "a damaged image was used"
        assert text == expected
        path.unlink()
    assert images.read(sound, None).header.tokens == PROMPT[: exported.tokens]
