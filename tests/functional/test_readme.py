"""The README's tour works as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tour() -> list[str]:
    """The commands of the README's tour."""
    text = (ROOT / "README.md").read_text()
    match = re.search(r"<!-- tour:.*?-->\n```sh\n(.*?)```", text, re.DOTALL)
    assert match, "the README has lost its tour"
    return match.group(1).splitlines()


def test_every_command_of_the_tour_succeeds(llmos_home: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    (llmos_home / "config" / "models.toml").unlink(missing_ok=True)
    script = "set -eo pipefail\n" + "\n".join(tour())
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    assert "kill 42" in result.stdout
    assert "ONE TWO" in result.stdout
    assert "exit status 0" in result.stdout


@pytest.mark.parametrize("target", ["run", "test"])
def test_set_up_commands_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
