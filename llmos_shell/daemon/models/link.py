"""The daemon's end of one worker: the OS process, its socket and its output. Messages in, messages out.

Owns no policy: whoever opened the link is told of every message, and once of its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Mapping

from msgspec import MsgspecError, Struct, msgpack

from llmos_shell.abi import worker as abi
from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.framing import Splitter, encode
from llmos_shell.daemon.receiver import Receiver

EXIT_SECONDS = 5.0
READS = 16
_decoder: msgpack.Decoder[abi.ToDaemon] = msgpack.Decoder(abi.ToDaemon)
_log = logging.getLogger("llmosd.worker")


class WorkerLink(Receiver):
    """One worker process."""

    def __init__(self, name: str, on_message: Callable[[abi.ToDaemon], None], on_lost: Callable[[str], None]) -> None:
        self._name = name
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._splitter = Splitter()
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._output = -1
        self._partial = b""
        self._fault = ""
        self._ended = False
        self.last_lines: deque[str] = deque(maxlen=20)
        self.messages = 0
        self.pid = 0

    async def start(self, argv: list[str], env: Mapping[str, str]) -> None:
        """Starts the process, with these additions to our environment. Raises OSError when it cannot be run."""
        ours, theirs = socket.socketpair()
        output, output_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*argv, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output_end,
                stderr=output_end,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd="/",
                env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ, **env},  # as NVML numbers GPUs
            )
        except OSError:
            ours.close()
            os.close(output)
            raise
        finally:
            theirs.close()
            os.close(output_end)
        self.pid = self._process.pid
        self._output = output
        os.set_blocking(output, False)
        self._loop.add_reader(output, self._read_output)
        await self._loop.create_unix_connection(lambda: self, sock=ours)

    @property
    def connected(self) -> bool:
        """Whether its end will be told of: the process runs, and its socket is ours."""
        return self._transport is not None

    def send(self, message: Struct) -> None:
        """Queues a message; all of one turn of the loop leave together."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(encode(message))

    def close(self) -> None:
        """Asks the worker to end."""
        self.send(abi.Close())

    def kill(self) -> None:
        """Ends the worker at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)

    def cpu_seconds(self) -> float:
        """CPU time the worker has used, to tell a long step from a hang; 0 where that cannot be read."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))
        except (OSError, ValueError, IndexError):
            return 0.0

    def rss(self) -> int:
        """Bytes of memory it occupies; 0 where that cannot be read."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return 0

    def read_bytes(self) -> int:
        """Bytes it has read from disk, to tell a slow load from a hang; 0 where that cannot be read."""
        try:
            with open(f"/proc/{self.pid}/io", "rb") as file:
                return int(file.readline().split()[1])
        except (OSError, ValueError, IndexError):
            return 0

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: memoryview) -> None:
        """Hands on the messages completed by `data`."""
        try:
            messages = [_decoder.decode(body) for body in self._splitter.feed(data)]
        except (MsgspecError, LlmosError) as error:
            self._fault = f"it sent what is no message: {error}"
            self.kill()
            return
        self.messages += len(messages)
        for message in messages:
            try:
                self._on_message(message)
            except LlmosError as error:
                self._fault = f"it broke the protocol: {error}"
                self.kill()
            except Exception as error:
                self._loop.call_exception_handler({"message": "a worker's message", "exception": error})

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker has gone, or is going."""
        self._transport = None
        self._outgoing.clear()
        if not self._ended:
            self._ended = True
            self._loop.create_task(self._bury())

    # -- private -------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and outgoing:
            self._transport.write(b"".join(outgoing))

    async def _bury(self) -> None:
        """Waits until the process is really gone, so that its memory is free, and reports how it ended."""
        process = self._process
        assert process is not None
        try:
            status = await self._loop.run_in_executor(None, _wait, process)
        except RuntimeError:  # the loop is closing: nobody is held up any more
            process.kill()
            status = process.wait()
        self._read_output()
        self._log_line(self._partial)  # last words without an end of line
        if self._output >= 0:
            self._loop.remove_reader(self._output)
            os.close(self._output)
            self._output = -1
        self._on_lost(self._fault or describe_status(status))

    def _read_output(self) -> None:
        if self._output < 0:
            return
        with contextlib.suppress(BlockingIOError):
            for _ in range(READS):  # a worker that talks without end must not hold up the loop
                data = os.read(self._output, 65536)
                if not data:
                    self._loop.remove_reader(self._output)
                    return
                lines = (self._partial + data).split(b"\n")
                self._partial = lines.pop()[-4096:]
                for line in lines:
                    self._log_line(line)

    def _log_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self.last_lines.append(text)
            _log.info("%s[%d]: %s", self._name, self.pid, text)


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def describe_status(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"it exited with status {status}"
    try:
        return f"it was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was killed by signal {-status}"
