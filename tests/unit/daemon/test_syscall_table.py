"""Every declared syscall is bound, and the sampling changes a spawn may make are checked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import BUILTIN
from llmos_shell.abi.types import Sampling
from llmos_shell.daemon.handlers import bind_all
from llmos_shell.daemon.handlers.start import merged
from llmos_shell.daemon.instance import private_dir
from llmos_shell.daemon.models.link import describe_status
from llmos_shell.daemon.syscalls import SyscallTable


def test_every_declaration_has_a_handler():
    table = SyscallTable(SimpleNamespace())
    bind_all(table)
    assert table.names() == frozenset(BUILTIN)
    with pytest.raises(ValueError, match="twice"):
        table.bind(BUILTIN["proc.spawn"], None)


def test_sampling_is_merged():
    base = Sampling(temperature=0.5, seed=1)
    assert merged(base, {}) is base
    assert merged(base, {"top_k": 3, "stop": ["a"]}) == Sampling(temperature=0.5, seed=1, top_k=3, stop=("a",))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"temprature": 1}, "no sampling parameter 'temprature'"),
        ({"temperature": "hot"}, "Expected `float`"),
        ({"temperature": -1}, "temperature -1.0 is out of range: use 0 to 100"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_sampling_is_refused(changes, text):
    with pytest.raises(LlmosError, match=text):
        merged(Sampling(), changes)


def test_private_folders(tmp_path):
    folder = tmp_path / "a" / "b"
    private_dir(str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    private_dir(str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        private_dir(str(tmp_path / "file"))


def test_somebody_elses_folder_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(LlmosError, match="belongs to user"):
        private_dir(str(folder))


def test_ends_in_words():
    assert describe_status(3) == "it exited with status 3"
    assert describe_status(-9) == "it was killed by SIGKILL"
    assert describe_status(-250) == "it was killed by signal 250"
