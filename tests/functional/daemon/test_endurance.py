"""Thousands of short processes: what they occupied is given back, by the daemon and by the worker."""

from __future__ import annotations

import os

import pytest

from llmos_shell.abi.syscalls import SYS_DMESG, Dmesg
from llmos_shell.daemon.events import RING
from llmos_shell.engine.arenas import MOST_FILES
from llmos_shell.testing.endurance import footprint, live_and_die

SOAK = int(os.environ.get("LLMOS_SOAK", "2"))
COUNT = min(10_000, 1_000 * SOAK)
WARM = min(1_000, COUNT // 2)
GROWTH = 1.02
TIGHT = {"end_after": 8, "pages": 40, "slots": 6}


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("weights", ["scripted", "tiny"])
@pytest.mark.llmos(models={"tight": TIGHT})
def test_short_processes_leave_nothing_behind(llmos_home, weights, request):
    if weights == "tiny":
        (llmos_home / "config" / "models.toml").write_text('default = "tiny"\n')
    daemon = request.getfixturevalue("daemon")
    live_and_die(WARM)
    with daemon.connect() as client:
        before = footprint(client)
    live_and_die(COUNT - WARM, WARM)
    with daemon.connect() as client:
        after = footprint(client)
        told = list(client.stream(SYS_DMESG, Dmesg(limit=2 * RING)))
    assert after.daemon_bytes <= GROWTH * before.daemon_bytes
    assert after.worker_bytes <= GROWTH * before.worker_bytes
    assert after.daemon_descriptors <= before.daemon_descriptors
    assert after.worker_descriptors <= before.worker_descriptors + MOST_FILES  # images' files, to be used again
    assert after.parked_files == 0
    assert [event.time for event in told] == sorted(event.time for event in told)
    assert len({(event.time, event.text) for event in told}) == len(told) == 2 * RING
