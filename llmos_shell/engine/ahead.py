"""Verifies images while steps are under way: from when a message names one until that message is carried out.

What was verified must stay what it is: the file is locked, so that it is not used again (`arenas`) should its name go
meanwhile. Owns the locks, and the thread that verifies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from llmos_shell.engine import images
from llmos_shell.engine.arenas import Arenas
from llmos_shell.engine.images import Image

_Locked = tuple[Image, int]
"""A verified image, and the descriptor whose lock it is under."""


class Ahead:
    """The images of one worker that will soon be restored. `expect` may be called from any one thread."""

    def __init__(self, fingerprint: str, arenas: Arenas) -> None:
        self._fingerprint = fingerprint
        self._arenas = arenas
        self._thread = ThreadPoolExecutor(1, "images")
        self._expected: dict[str, Future[_Locked]] = {}

    def serves(self, fingerprint: str) -> None:
        """From now on images are of this one; those that were expected are forgotten."""
        for path in list(self._expected):
            self.forget(path)
        self._fingerprint = fingerprint

    def expect(self, path: str) -> None:
        """This image will be asked for."""
        if path not in self._expected:
            with contextlib.suppress(RuntimeError):  # it is closed: nothing will be asked for
                self._expected[path] = self._thread.submit(self._verified, path)

    @contextmanager
    def image(self, path: str) -> Iterator[Image]:
        """The image, valid within the `with`. Raises what `images.read` does."""
        expected = self._expected.pop(path, None)
        if expected is None or expected.cancel():
            yield images.read(path, self._fingerprint, self._arenas)
            return
        try:
            image, descriptor = expected.result()
        except OSError:  # no such file, or one that cannot be locked
            yield images.read(path, self._fingerprint, self._arenas)
            return
        try:
            yield image
        finally:
            os.close(descriptor)

    def forget(self, path: str) -> None:
        """Nobody will ask for it after all."""
        expected = self._expected.pop(path, None)
        if expected is not None and not expected.cancel():
            expected.add_done_callback(_unlock)

    def close(self) -> None:
        """Forgets all of them."""
        for path in list(self._expected):
            self.forget(path)
        self._thread.shutdown()

    def _verified(self, path: str) -> _Locked:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return images.read(path, self._fingerprint, self._arenas), descriptor
        except BaseException:
            os.close(descriptor)
            raise


def _unlock(done: Future[_Locked]) -> None:
    with contextlib.suppress(Exception):
        os.close(done.result()[1])
