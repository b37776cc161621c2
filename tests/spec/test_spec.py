"""The language's executable specification: every case of `*.test` beside this file.

#### what the case shows
the script
## status: 1             (0 when left out)
## stdout: one line      or  ## STDOUT: … ## END  (nothing when left out)
## stderr-has: text      (a part of stderr; only ours, not the other shell's)
## bash                  the script is no plain sh: bash, if installed, must agree instead of dash
## llmos only            neither dash nor bash has to agree
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(HERE.parent.parent)}


@dataclass
class Case:
    file: str
    name: str
    script: list[str] = field(default_factory=list)
    status: int = 0
    stdout: str = ""
    stderr_has: list[str] = field(default_factory=list)
    shell: str = "dash"


def read_cases(path: Path) -> list[Case]:
    cases: list[Case] = []
    block: list[str] | None = None
    for line in path.read_text().splitlines():
        case = cases[-1] if cases else None
        if block is not None:
            if line == "## END":
                assert case is not None
                case.stdout, block = "".join(f"{each}\n" for each in block), None
            else:
                block.append(line)
        elif line.startswith("#### "):
            cases.append(Case(path.stem, line[5:]))
        elif case is None:
            assert not line.strip() or line.startswith("#"), f"{path}: text before the first case"
        elif line.startswith("## status: "):
            case.status = int(line[11:])
        elif line.startswith("## stdout: "):
            case.stdout = f"{line[11:]}\n"
        elif line == "## STDOUT:":
            block = []
        elif line.startswith("## stderr-has: "):
            case.stderr_has.append(line[15:])
        elif line == "## llmos only":
            case.shell = ""
        elif line == "## bash":
            case.shell = "bash"
        else:
            assert not line.startswith("## "), f"{path}: {line}"
            case.script.append(line)
    return cases


CASES = [case for path in sorted(HERE.glob("*.test")) for case in read_cases(path)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of our shell by file, computed when first asked for."""
    known: dict[str, dict[str, tuple[int, str, str]]] = {}

    def of(file: str):
        if file not in known:
            base = tmp_path_factory.mktemp(file)
            cases = [case for case in CASES if case.file == file]
            folders = [base / str(number) for number in range(len(cases))]
            for folder in folders:
                folder.mkdir()
            scripts = [["\n".join(case.script), str(folder)] for case, folder in zip(cases, folders, strict=True)]
            (base / "cases").write_text(json.dumps(scripts))
            argv = [sys.executable, "-P", str(HERE / "driver.py"), str(base / "cases"), str(base / "results")]
            subprocess.run(argv, check=True, env=ENVIRONMENT, timeout=110)
            found = json.loads((base / "results").read_text())
            known[file] = {case.name: result for case, result in zip(cases, found, strict=True)}
        return known[file]

    return of


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file}: {case.name}")
def test_llmos(case, results):
    status, stdout, stderr = results(case.file)[case.name]
    assert (stdout, status) == (case.stdout, case.status), stderr
    for part in case.stderr_has:
        assert part in stderr


@pytest.mark.parametrize("case", [case for case in CASES if case.shell], ids=lambda c: f"{c.file}: {c.name}")
def test_other_shell_agrees(case, tmp_path):
    if shutil.which(case.shell) is None:
        pytest.skip(f"{case.shell} is not installed")
    environment = {**ENVIRONMENT, "HOME": str(tmp_path), "PWD": str(tmp_path)}
    options = ["-O", "extglob"] if case.shell == "bash" else []
    argv = [case.shell, *options, "-c", "\n".join(case.script), "sh"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
    output = done.stdout.decode(errors="surrogateescape")
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    assert (output, status) == (case.stdout, case.status), done.stderr.decode(errors="replace")


def test_names_are_unique():
    assert len({(case.file, case.name) for case in CASES}) == len(CASES)
    assert len(CASES) >= 400
    assert os.path.exists(HERE / "driver.py")
