"""The wheel holds what it should, and nothing under a name that others probe for."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of all files in a freshly built wheel."""
    source = tmp_path_factory.mktemp("source")
    target = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(target),
            str(source),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = target.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_has_only_our_top_level_names(wheel_names: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {"llmos_shell", "llmos_kernel_llamacpp"}


def test_wheel_ships_the_built_in_model_and_its_card(wheel_names: set[str]) -> None:
    assert {
        "llmos_shell/models/builtin/tiny.gguf",
        "llmos_shell/models/builtin/CARD.md",
        "llmos_shell/py.typed",
        "llmos_kernel_llamacpp/worker.py",
    } <= wheel_names


def test_wheel_ships_no_tests_or_caches(wheel_names: set[str]) -> None:
    assert not [name for name in wheel_names if "__pycache__" in name or name.startswith(("tests/", "bench/"))]


@pytest.mark.parametrize("name", ["kernels", "plugins"])
def test_source_roots_are_not_importable(name: str, tmp_path: Path) -> None:
    """Others probe for packages of these names (`kernels` is one on PyPI); they must never find our folders."""
    probe = f"import importlib.util as u; s = u.find_spec({name!r}); print(s and s.submodule_search_locations)"
    found = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(ROOT) not in found.stdout
    assert not (ROOT / name / "__init__.py").exists()
