"""The model registry: packaged entries, the user's, mistakes in them, and paths as names."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelEntry
from llmos_shell.models.registry import PACKAGED, Registry

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def written(file: Path, text: str) -> Registry:
    file.write_text(text)
    return Registry(str(file))


class TestPackaged:
    def test_lists_the_assistant_as_default(self, user_file: Path) -> None:
        registry = Registry(str(user_file))
        entry = registry.resolve()
        assert registry.default == entry.name == "tiny"
        assert (entry.role, entry.builtin, entry.sampling) == ("assistant", True, {"temperature": 0.0})
        assert entry.path == os.path.join(os.path.dirname(PACKAGED), "builtin", "tiny.gguf")
        assert registry.problems == ()

    def test_missing_weights_are_a_problem_of_the_listing(self, tmp_path: Path) -> None:
        packaged = tmp_path / "packaged.toml"
        packaged.write_text('default = "tiny"\n[models.tiny]\npath = "tiny.gguf"\n')
        (listed,) = Registry(str(tmp_path / "none"), str(packaged)).listing()
        assert (listed.default, listed.bytes) == (True, 0)
        assert listed.problem == f"no such file: {tmp_path / 'tiny.gguf'}"

    def test_the_user_file_is_in_the_configuration_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LLMOS_HOME", str(tmp_path))
        assert Registry().user_file == str(tmp_path / "config" / "models.toml")


class TestUserFile:
    def test_adds_and_overrides(self, user_file: Path) -> None:
        (user_file.parent / "w.gguf").write_bytes(b"12345")
        registry = written(
            user_file,
            'default = "mine"\n'
            '[models.mine]\npath = "w.gguf"\ncontext = 512\nsampling = {temperature = 1, stop = ["x"]}\n'
            '[models.tiny]\npath = "~/t.gguf"\n',
        )
        assert registry.resolve() == ModelEntry(
            "mine", str(user_file.parent / "w.gguf"), context=512, sampling={"temperature": 1, "stop": ["x"]}
        )
        assert registry.resolve("tiny") == ModelEntry("tiny", os.path.expanduser("~/t.gguf"))
        assert [(one.entry.name, one.default, one.bytes) for one in registry.listing()] == [
            ("mine", True, 5),
            ("tiny", False, 0),
        ]

    def test_a_draft_lies_beside_the_file_that_names_it(self, user_file: Path) -> None:
        (user_file.parent / "w.gguf").write_bytes(b"12345")
        registry = written(user_file, '[models.mine]\npath = "w.gguf"\ndraft = "small/d.gguf"\n')
        entry = registry.resolve("mine")
        assert entry.draft == str(user_file.parent / "small" / "d.gguf")
        assert registry.status(entry).problem == f"its draft model: no such file: {entry.draft}"
        (user_file.parent / "small").mkdir()
        (user_file.parent / "small" / "d.gguf").write_bytes(b"1")
        assert registry.status(entry).problem == ""

    def test_is_read_again_when_it_changes(self, user_file: Path) -> None:
        registry = Registry(str(user_file))
        assert registry.default == "tiny"
        user_file.write_text('default = "other"\n[models.other]\npath = "/o.gguf"\n')
        assert registry.resolve().path == "/o.gguf"
        user_file.unlink()
        assert registry.resolve().name == "tiny"

    @pytest.mark.parametrize(
        ("settings", "problem"),
        [
            ('path = "x"\ncontxt = 5', "models.bad.contxt: unknown key, did you mean context?"),
            ('path = "x"\nname = "y"', "models.bad.name: unknown key"),
            ('path = "x"\ncontext = "5"', "models.bad.context: expected `int | null`, got `str`"),
            ('path = "x"\ncontext = 0', "models.bad.context: must be at least 1"),
            ('path = "x"\nslots = -1', "models.bad.slots: must be at least 1"),
            ('path = "x"\ngpus = [0, -1]', "models.bad.gpus: must be numbers of GPUs, each once"),
            ('path = "x"\ngpus = [1, 1]', "models.bad.gpus: must be numbers of GPUs, each once"),
            ('path = "x"\nlayout = "both"', "models.bad.layout: invalid enum value 'both'"),
            ('path = "x"\nsampling = {heat = 1}', "models.bad.sampling.heat: unknown key"),
            ('path = "x"\nsampling = {top_k = "1"}', "models.bad.sampling: Expected `int`, got `str` - at `$.top_k`"),
            ('path = "x"\nthreads = 99999999999', "models.bad.threads: must be at most 2147483647"),
            (
                'path = "x"\noptions = {a = 99999999999999999999999}',
                "models.bad.options: can't serialize ints < -2**63 or > 2**64 - 1",
            ),
            ("path = 5", "models.bad.path: expected `str`, got `int`"),
            ("", "models.bad.path: missing"),
        ],
    )
    def test_a_broken_entry_is_one_line_and_hides_no_other(self, settings: str, problem: str, user_file: Path) -> None:
        registry = written(user_file, f'[models.good]\npath = "/g.gguf"\n[models.bad]\n{settings}\n')
        with pytest.raises(LlmosError) as caught:
            registry.resolve("bad")
        assert caught.value.code is Code.EINVAL
        assert str(caught.value) == f"{user_file}: {problem}"
        assert registry.resolve("good").path == "/g.gguf"
        problems = {one.entry.name: one.problem for one in registry.listing()}
        assert problems["bad"] == f"{user_file}: {problem}"
        assert set(problems) == {"bad", "good", "tiny"}

    @pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x.gguf", "é", "x" * 65])
    def test_names_are_checked(self, name: str, user_file: Path) -> None:
        registry = written(user_file, f'[models."{name}"]\npath = "/g.gguf"\n')
        (broken,) = (one for one in registry.listing() if one.entry.name == name)
        assert "a name is" in broken.problem

    def test_a_file_that_is_no_toml_leaves_the_packaged_models(self, user_file: Path) -> None:
        registry = written(user_file, "[models.x\npath = ")
        assert registry.resolve("tiny").name == "tiny"
        (problem,) = registry.problems
        with pytest.raises(LlmosError, match=re.escape(problem)):
            registry.resolve()
        assert problem.startswith(f"{user_file}: ")
        assert "line 1" in problem
        with pytest.raises(LlmosError, match=re.escape(problem)):
            registry.resolve("x")

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("defualt = 'tiny'", "defualt: unknown key"),
            ("default = 5", "default: not a text"),
            ("default = 'none'", "default: no model 'none'"),
            ("models = 5", "models: not a table"),
        ],
    )
    def test_mistakes_outside_of_entries(self, text: str, problem: str, user_file: Path) -> None:
        registry = written(user_file, text + "\n")
        assert registry.problems == (f"{user_file}: {problem}",)
        assert registry.resolve("tiny").name == "tiny"

    def test_an_entry_that_is_no_table(self, user_file: Path) -> None:
        registry = written(user_file, "[models]\nx = 5\n")
        (broken,) = (one for one in registry.listing() if one.entry.name == "x")
        assert broken.problem == f"{user_file}: models.x: not a table"


class TestResolve:
    def test_an_unknown_name_suggests(self, user_file: Path) -> None:
        registry = Registry(str(user_file))
        with pytest.raises(LlmosError, match="did you mean tiny") as caught:
            registry.resolve("tinny")
        assert caught.value.code is Code.ENOENT
        with pytest.raises(LlmosError, match="known: tiny"):
            registry.resolve("zzzzzz")

    def test_a_path_is_an_entry_of_its_own(self, user_file: Path) -> None:
        registry = Registry(str(user_file))
        assert registry.resolve("/some/where/new.gguf") == ModelEntry("new", "/some/where/new.gguf")
        assert registry.resolve("new").path == "/some/where/new.gguf"
        assert registry.resolve("~/x.gguf").path == os.path.expanduser("~/x.gguf")

    def test_names_of_paths_do_not_stand_for_two_files(self, user_file: Path) -> None:
        registry = Registry(str(user_file))
        names = [registry.resolve(path).name for path in ("/a/x.gguf", "/b/x.gguf", "/a/x.gguf", "/c/tiny.gguf")]
        assert names == ["x", "/b/x.gguf", "x", "/c/tiny.gguf"]
        assert registry.resolve("/b/x.gguf").path == "/b/x.gguf"

    def test_a_path_no_file_can_have(self, user_file: Path) -> None:
        registry = written(user_file, '[models.x]\npath = "a\\u0000"\n')
        assert "character 0" in registry.status(registry.resolve("x")).problem

    def test_weights_that_are_a_folder(self, user_file: Path) -> None:
        registry = written(user_file, '[models.x]\npath = "."\n')
        assert "is a folder" in registry.status(registry.resolve("x")).problem


class TestTemplate:
    """`models.toml` in the repository's root is a template: comments only, and right when uncommented."""

    text = (ROOT / "models.toml").read_text()

    def test_has_no_effect_as_it_stands(self) -> None:
        assert tomllib.loads(self.text) == {}

    def test_is_right_when_uncommented(self, user_file: Path) -> None:
        lines = (re.sub(r"^# (?=\w+ = |\[)", "", line) for line in self.text.splitlines())
        registry = written(user_file, "\n".join(lines))
        assert registry.problems == ()
        assert registry.default == "qwen"
        assert registry.resolve().slots == 8

    def test_shows_every_setting(self) -> None:
        for key in set(ModelEntry.__struct_fields__) - {"name", "builtin", "role"}:
            assert re.search(rf"^# {key} = ", self.text, re.MULTILINE), key
