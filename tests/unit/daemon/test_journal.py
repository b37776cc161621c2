"""The journal: what is handed in comes back, whatever happens to process, disk and file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Event
from llmos_shell.daemon.journaling import migrations, writer
from llmos_shell.daemon.journaling.database import connect, move_aside
from llmos_shell.daemon.journaling.journal import Chunk, Ended, Journal, Keep
from llmos_shell.daemon.journaling.records import Batch, joined

WAIT = 20.0  # seconds for something that takes milliseconds

Opener = Callable[..., Journal]


class Errors(list[str]):
    """Error lines, with a way to wait for the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Semaphore(0)

    def __call__(self, text: str) -> None:
        self.append(text)
        self.came.release()

    def wait(self) -> str:
        assert self.came.acquire(timeout=WAIT)
        return self[-1]


class Disk:
    """Connections whose database may be limited to a size, like a disk that is full."""

    def __init__(self) -> None:
        self.opened: list[sqlite3.Connection] = []

    def __call__(self, path: str) -> sqlite3.Connection:
        self.opened.append(connect(path))
        return self.opened[-1]

    def fill(self) -> None:
        self.opened[0].execute("PRAGMA max_page_count = 1").fetchone()  # SQLite raises that to the present size

    def free(self) -> None:
        self.opened[0].execute("PRAGMA max_page_count = 1000000").fetchone()


@pytest.fixture
def errors() -> Errors:
    return Errors()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "journal.db")


@pytest.fixture
def opener(path: str, errors: Errors) -> Iterator[Opener]:
    opened: list[Journal] = []

    def open_journal(**options: object) -> Journal:
        opened.append(Journal(path, errors, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_journal
    for journal in opened:
        journal.close()


class TestRoundTrip:
    def test_a_process_with_its_tokens_and_text(self, opener: Opener) -> None:
        journal = opener()
        journal.put_process(7, b"old")
        journal.append(7, 0, [1, 2, 3], "hello", turn=1, role="user")
        journal.append(7, 3, (4,), " wo", turn=2, role="assistant")
        journal.append(7, 4, (5,), "rld", turn=2, role="assistant")
        journal.append(7, 5, (), "!", turn=2, role="assistant")
        journal.append(7, 5, (6,), "?", turn=3, role="assistant")
        journal.put_process(7, b"new", state="r")
        assert journal.close()
        (saved,) = opener().load()
        assert (saved.pid, saved.record, list(saved.tokens), saved.damage) == (7, b"new", [1, 2, 3, 4, 5, 6], "")
        assert [(one.start, list(one.tokens), one.text, one.turn, one.role) for one in saved.chunks] == [
            (0, [1, 2, 3], "hello", 1, "user"),
            (3, [4, 5], " world!", 2, "assistant"),
            (5, [6], "?", 3, "assistant"),
        ]

    def test_processes_that_ended_are_history(self, opener: Opener) -> None:
        journal = opener()
        for pid in (2, 3, 4, 5):
            journal.put_process(pid, b"%d" % pid, ended=float(9 - pid) if pid > 2 else None, exit_code=0)
            journal.append(pid, 0, [pid])
        assert [saved.pid for saved in journal.load()] == [2]
        assert journal.history(2) == [Ended(4, b"4", 5.0), Ended(3, b"3", 6.0)]
        assert list(journal.tokens(5)) == [5]
        saved = journal.saved(3)
        assert saved is not None
        assert (saved.ended, list(saved.tokens)) == (6.0, [3])
        assert (journal.saved(99), list(journal.tokens(99))) == (None, [])

    def test_truncation_cuts_tokens_and_keeps_the_text(self, opener: Opener) -> None:
        journal = opener()
        journal.put_process(7, b"")
        journal.append(7, 0, [1, 2, 3, 4], "said")
        journal.truncate(7, 2)
        journal.append(7, 2, [9], " more")
        (saved,) = journal.load()
        assert list(saved.tokens) == [1, 2, 9]
        assert "".join(chunk.text for chunk in saved.chunks) == "said more"

    def test_a_chunk_that_starts_earlier_replaces(self, opener: Opener) -> None:
        journal = opener()
        journal.append(7, 0, [1, 2, 3, 4])
        journal.append(7, 1, [8, 9])
        assert list(journal.tokens(7)) == [1, 8, 9]

    def test_events_audit_and_the_last_pid(self, opener: Opener, path: str) -> None:
        journal = opener()
        assert journal.last_pid() == 0
        journal.put_process(41, b"", ended=1.0)
        journal.flush().result(WAIT)
        journal.put_process(12, b"")
        for number in range(5):
            journal.event(Event(float(number), "info", "sched", f"line {number}", 12))
        journal.audit(12, "fs.read", "/etc/passwd", "denied", now=3.0)
        assert [event.text for event in journal.events(2)] == ["line 3", "line 4"]
        assert journal.events(1)[0] == Event(4.0, "info", "sched", "line 4", 12)
        assert journal.last_pid() == 41
        with sqlite3.connect(path) as db:
            rows = db.execute("SELECT time, pid, action, detail, outcome FROM audit").fetchall()
        db.close()
        assert rows == [(3.0, 12, "fs.read", "/etc/passwd", "denied")]

    def test_undecodable_text_is_kept_readable(self, opener: Opener) -> None:
        journal = opener()
        journal.event(Event(1.0, "error", "worker", "no file \udcff", None))
        journal.append(7, 0, [1], "é😀")
        assert journal.events(1)[0].text == "no file ?"
        journal.put_process(7, b"")
        assert journal.load()[0].chunks[0].text == "é😀"

    @given(
        st.lists(
            st.tuples(st.integers(2, 4), st.integers(0, 5), st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4))
        )
    )
    @settings(max_examples=60)
    def test_merging_chunks_changes_nothing(self, writes: list[tuple[int, int, list[int]]]) -> None:
        naive: dict[int, list[int]] = {}
        batch, db = Batch(), sqlite3.connect(":memory:", isolation_level=None)
        migrations.migrate(db)
        for pid, back, tokens in writes:
            context = naive.setdefault(pid, [])
            start = max(len(context) - back, 0)
            batch.append(pid, start, tokens, "", 0, "")
            context[start:] = tokens
        batch.write(db)
        for pid, context in naive.items():
            rows = db.execute("SELECT start, tokens, text, turn, role FROM tokens WHERE pid = ? ORDER BY id", (pid,))
            assert joined(rows)[0].tolist() == context
        db.close()


class TestWriting:
    def test_is_committed_without_a_flush(self, opener: Opener, path: str) -> None:
        committed = threading.Event()

        def watched(path: str) -> sqlite3.Connection:
            db = connect(path)
            db.set_trace_callback(lambda statement: committed.set() if statement == "COMMIT" and armed else None)
            return db

        armed = False
        journal = opener(connect=watched)
        armed = True
        journal.put_process(7, b"x")
        assert committed.wait(WAIT)

    def test_many_small_appends_become_one_row(self, opener: Opener, path: str) -> None:
        journal = opener(flush_seconds=WAIT)
        for number in range(100):
            journal.append(7, number, (number,), "x")
            journal.append(8, number, (number,), "y")
        journal.flush().result(WAIT)
        with sqlite3.connect(path) as db:
            assert db.execute("SELECT count(*), sum(length(tokens)) FROM tokens").fetchone() == (2, 800)
        db.close()

    def test_the_database_is_private(self, opener: Opener, path: str) -> None:
        opener()
        assert os.stat(path).st_mode & 0o777 == 0o600
        assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700

    def test_its_size_is_known(self, opener: Opener) -> None:
        journal = opener()
        before = journal.size()
        journal.append(7, 0, range(50_000))
        journal.flush().result(WAIT)
        assert journal.size() >= before + 200_000

    def test_closed_means_closed(self, opener: Opener) -> None:
        journal = opener()
        assert journal.close()
        assert journal.close()
        with pytest.raises(LlmosError):
            journal.flush().result(WAIT)
        assert journal.load() == []

    def test_old_processes_and_events_are_pruned(self, opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "PRUNE_EVERY", 1)
        journal = opener(keep=Keep(ended=2, events=3))
        journal.put_process(2, b"live")
        for pid in range(3, 8):
            journal.put_process(pid, b"", ended=float(pid))
            journal.append(pid, 0, [pid])
            journal.event(Event(float(pid), "info", "x", str(pid)))
        assert [ended.pid for ended in journal.history(10)] == [6, 7]
        assert [event.text for event in journal.events(10)] == ["5", "6", "7"]
        assert (list(journal.tokens(3)), list(journal.tokens(7))) == ([], [7])
        assert [saved.pid for saved in journal.load()] == [2]
        assert journal.last_pid() == 7

    def test_a_large_past_is_shortened(self, opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "PRUNE_EVERY", 1)
        journal = opener(keep=Keep(bytes=4_000_000, least_ended=5))
        journal.append(2, 0, range(100_000))
        journal.put_process(2, b"live")
        for pid in range(3, 43):
            journal.append(pid, 0, range(50_000))
            journal.put_process(pid, b"", ended=float(pid))
            journal.flush().result(WAIT)
        kept = [ended.pid for ended in journal.history(100)]
        assert 5 <= len(kept) < 20 and kept == list(range(43 - len(kept), 43))
        assert len(journal.tokens(2)) == 100_000 and not journal.tokens(3) and len(journal.tokens(42)) == 50_000
        assert journal.size() < 12_000_000

    def test_the_newest_stay_however_large_they_are(self, opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "PRUNE_EVERY", 1)
        journal = opener(keep=Keep(bytes=1000, least_ended=3))
        for pid in range(2, 10):
            journal.put_process(pid, b"x" * 10_000, ended=float(pid))
        assert [ended.pid for ended in journal.history(100)] == [7, 8, 9]


class TestErrors:
    def test_a_full_disk_loses_nothing(self, opener: Opener, errors: Errors) -> None:
        disk = Disk()
        journal = opener(connect=disk)
        journal.put_process(7, b"x")
        journal.flush().result(WAIT)
        disk.fill()
        journal.append(7, 0, range(20_000))
        with pytest.raises(LlmosError) as caught:
            journal.flush().result(WAIT)
        assert caught.value.code is Code.ENOSPC
        assert "full" in journal.error
        journal.append(7, 20_000, (1, 2), "then")
        with pytest.raises(LlmosError):
            journal.flush().result(WAIT)
        assert len(errors) == 1
        disk.free()
        journal.flush().result(WAIT)
        assert (len(journal.tokens(7)), journal.error) == (20_002, "")
        assert len(errors) == 2
        assert errors[1] == "the journal can be written again; nothing was lost"

    def test_it_tries_again_by_itself(self, opener: Opener, errors: Errors, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "RETRY_SECONDS", (0.001, 0.01))
        disk = Disk()
        journal = opener(connect=disk, flush_seconds=0.001)
        disk.fill()
        journal.append(7, 0, range(20_000))
        assert "cannot be written" in errors.wait()
        disk.free()
        assert "can be written again" in errors.wait()
        assert len(journal.tokens(7)) == 20_000

    def test_a_long_outage_costs_events_never_tokens(self, opener: Opener, errors: Errors) -> None:
        disk = Disk()
        journal = opener(connect=disk, backlog_bytes=200_000)
        disk.fill()
        for number in range(100):
            journal.append(7, number * 1000, range(number * 1000, number * 1000 + 1000))
            journal.event(Event(float(number), "info", "x", "y" * 1000))
        for _ in range(2):
            with pytest.raises(LlmosError):
                journal.flush().result(WAIT)
        assert sum("dropping the oldest events" in text for text in errors) == 1
        journal.event(Event(100.0, "info", "x", "last"))
        disk.free()
        assert list(journal.tokens(7)) == list(range(100_000))
        kept = journal.events(1000)
        assert len(kept) < 50
        assert kept[-1].text == "last"
        assert errors[-1] == f"the journal can be written again; {101 - len(kept)} old events were dropped"

    def test_closing_on_a_full_disk_says_what_is_lost(self, opener: Opener, errors: Errors) -> None:
        disk = Disk()
        journal = opener(connect=disk)
        disk.fill()
        journal.append(7, 0, range(20_000))
        assert not journal.close()
        assert "bytes unwritten" in errors[-1]

    def test_a_listener_that_raises_does_no_harm(self, path: str) -> None:
        def listener(text: str) -> None:
            raise RuntimeError("the loop is closed")

        disk = Disk()
        journal = Journal(path, listener, connect=disk)
        disk.fill()
        journal.append(7, 0, range(20_000))
        with pytest.raises(LlmosError):
            journal.flush().result(WAIT)
        disk.free()
        assert len(journal.tokens(7)) == 20_000
        assert journal.close()

    @pytest.mark.parametrize("damage", ["garbage", "middle", "truncated"])
    def test_a_damaged_file_is_moved_aside(self, damage: str, path: str, opener: Opener, errors: Errors) -> None:
        journal = opener()
        journal.put_process(7, b"x" * 100)
        for number in range(500):
            journal.append(number, 0, range(100), "text")
        journal.close()
        data = Path(path).read_bytes()
        assert len(data) > 20_000
        broken = {
            "garbage": b"not a database" * 1000,
            "middle": data[:8192] + b"\xff" * 4096 + data[12288:],
            "truncated": data[: len(data) // 2],
        }
        Path(path).write_bytes(broken[damage])
        again = opener()
        assert again.load() == []
        assert len(errors) == 1
        assert f"{path}.corrupt-1" in errors[0]
        assert Path(f"{path}.corrupt-1").read_bytes() == broken[damage]
        again.close()
        Path(path).write_bytes(broken[damage])
        opener()
        assert f"{path}.corrupt-2" in errors[1]

    def test_what_belongs_to_a_damaged_file_goes_with_it(self, tmp_path: Path) -> None:
        for name in ("db", "db-wal", "db-shm", "db.corrupt-1"):
            (tmp_path / name).touch()
        assert move_aside(str(tmp_path / "db")) == str(tmp_path / "db.corrupt-2")
        names = {file.name for file in tmp_path.iterdir()}
        assert names == {"db.corrupt-1", "db.corrupt-2", "db.corrupt-2-wal", "db.corrupt-2-shm"}

    def test_a_newer_schema_is_refused_and_left_alone(self, path: str, opener: Opener, errors: Errors) -> None:
        opener().close()
        db = connect(path)
        db.execute("UPDATE meta SET value = 99 WHERE key = 'schema'")
        db.close()
        with pytest.raises(LlmosError, match="newer") as caught:
            opener()
        assert caught.value.code is Code.EPROTO
        assert "\n" not in str(caught.value)
        assert errors == []
        assert os.path.exists(path)

    def test_a_place_that_cannot_be_written_is_one_line(self, tmp_path: Path, errors: Errors) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(LlmosError) as caught:
            Journal(str(tmp_path / "file" / "journal.db"), errors)
        assert caught.value.code is Code.EIO

    def test_missing_tokens_are_said(self, opener: Opener) -> None:
        journal = opener()
        journal.put_process(7, b"")
        journal.append(7, 0, [1, 2])
        journal.append(7, 5, [6], "text")
        (saved,) = journal.load()
        assert (list(saved.tokens), saved.damage) == ([1, 2], "tokens 2 to 5 are missing")
        assert saved.chunks[-1] == Chunk(5, saved.chunks[-1].tokens, "text")


def test_migrations_are_done_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrations.migrate(db)
    assert migrations.schema_of(db) == len(migrations.MIGRATIONS)

    def second(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE more (id INTEGER)")

    def broken(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE half (id INTEGER)")
        raise sqlite3.OperationalError("no")

    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, second, broken))
    with pytest.raises(sqlite3.OperationalError):
        migrations.migrate(db)
    assert migrations.schema_of(db) == len(migrations.MIGRATIONS) - 1
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert "more" in tables
    assert "half" not in tables
    db.close()


WRITE_FOR_EVER = """
import sys
from llmos_shell.daemon.journaling.journal import Journal
journal = Journal(sys.argv[1], print)
journal.put_process(7, b"x")
position = 0
while True:
    for _ in range(50):
        journal.append(7, position, (position,), "w")
        position += 1
    journal.flush().result()
    print(position, flush=True)
"""


def test_kill_9_loses_nothing_that_was_committed(path: str, opener: Opener, errors: Errors) -> None:
    child = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        for _ in range(20):
            said = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        said = max(said, *(int(line) for line in child.stdout if line.endswith("\n")), 0)
    assert child.wait(WAIT) == -signal.SIGKILL
    (saved,) = opener().load()
    assert errors == []
    assert saved.tokens.tolist() == list(range(len(saved.tokens)))  # type: ignore[attr-defined]
    assert len(saved.tokens) >= said
    assert "".join(chunk.text for chunk in saved.chunks) == "w" * len(saved.tokens)
