"""What thousands of short processes leave behind, in the daemon's memory, the worker's, and on disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from llmos_shell.testing.daemon import DaemonProcess, write_models
from llmos_shell.testing.endurance import Footprint, footprint, live_and_die

SHORT = 10_000


def measure() -> list[str]:
    """What 10,000 short processes leave behind, against 1,000."""
    lines = ["| what | figure | target |", "|---|---|---|"]
    for name in ("scripted engine", "built-in model"):
        with tempfile.TemporaryDirectory(prefix="llmos-bench-") as folder:
            home = Path(folder)
            if name == "scripted engine":
                write_models(home, tight={"end_after": 8, "pages": 40, "slots": 6})
            os.environ["LLMOS_HOME"] = folder
            daemon = DaemonProcess(home)
            daemon.start()
            try:
                few, many = _after(daemon, 0, SHORT // 10), _after(daemon, SHORT // 10, SHORT)
            finally:
                daemon.stop()
        for whose, before, after in (
            ("daemon", few.daemon_bytes, many.daemon_bytes),
            ("worker", few.worker_bytes, many.worker_bytes),
        ):
            figure = f"{after / 2**20:.1f} against {before / 2**20:.1f} MiB: {100 * (after / before - 1):+.1f} %"
            what = f"RSS but images' files, after {SHORT} processes against {SHORT // 10}: {whose}, {name}"
            lines.append(f"| {what} | {figure} | ≤ 2 % |")
        disk = f"{many.state_bytes / 2**20:.0f} against {few.state_bytes / 2**20:.0f} MiB"
        lines.append(f"| … journal and log on disk | {disk} | |")
    return lines


def _after(daemon: DaemonProcess, first: int, last: int) -> Footprint:
    live_and_die(last - first, first)
    with daemon.connect() as client:
        return footprint(client)
