"""The configuration file: what is read from it, and what an edit leaves as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsd_cli.config.file import ConfigFile
from hsd_cli.config.keys import split_key
from hsd_cli.errors import HsdError, UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hsd" / "config.toml"


def written(path: Path, text: str) -> ConfigFile:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return ConfigFile(path)


def test_a_file_that_does_not_exist_is_empty_and_made_with_the_first_value(path: Path) -> None:
    file = ConfigFile(path)
    assert (file.options, file.pairs) == ({}, {})
    file.set("target", "embedded:target")
    assert path.read_text() == 'target = "embedded:target"\n'
    assert path.stat().st_mode & 0o777 == 0o600


def test_values_keep_their_types(path: Path) -> None:
    values = {"target": "a/b", "seed": 7, "temperature": 0.5, "stats": False}
    for key, value in values.items():
        ConfigFile(path).set(key, value)
    assert ConfigFile(path).options == values
    assert [type(value) for value in ConfigFile(path).options.values()] == [str, int, float, bool]


def test_a_pair_is_a_table_even_if_its_name_has_dots(path: Path) -> None:
    for key in ("pairs.qwen2.5.target", "pairs.qwen2.5.draft", "pairs.b.draft"):
        ConfigFile(path).set(key, "x")
    ConfigFile(path).set("seed", 1)
    assert ConfigFile(path).pairs == {"qwen2.5": {"target": "x", "draft": "x"}, "b": {"draft": "x"}}
    assert ConfigFile(path).options == {"seed": 1}
    assert path.read_text().startswith('seed = 1\n\n[pairs."qwen2.5"]\n')


def test_an_edit_keeps_comments_order_and_blanks(path: Path) -> None:
    file = written(path, '# mine\ntarget = "a"  # why\n\nseed = 1\n\n[pairs.x]\n# note\ndraft = "d"\n')
    file.set("target", "b")
    file.set("pairs.x.target", "t")
    assert file.unset("seed")
    assert path.read_text() == '# mine\ntarget = "b"  # why\n\n\n[pairs.x]\n# note\ndraft = "d"\ntarget = "t"\n'


@pytest.mark.parametrize("text", ['pairs = {x = {draft = "d"}}', '[pairs]\nx.draft = "d"', 'pairs.x.draft = "d"'])
def test_every_form_of_a_table_can_be_edited(path: Path, text: str) -> None:
    written(path, f"{text}\n").set("pairs.x.target", "t")
    assert ConfigFile(path).pairs == {"x": {"draft": "d", "target": "t"}}
    assert ConfigFile(path).unset("pairs.x.draft")
    assert ConfigFile(path).unset("pairs.x.target")
    assert ConfigFile(path).pairs == {}


def test_what_the_editor_would_lose_is_left_to_the_hand(path: Path) -> None:
    text = '[pairs.x]\ndraft = "d"\n[other]\na = 1\n[pairs.y]\ndraft = "d"\n'
    with pytest.raises(HsdError, match="too intricate to edit"):
        written(path, text).set("pairs.z.target", "t")
    assert path.read_text() == text


def test_unset_takes_a_value_or_a_whole_pair(path: Path) -> None:
    text = 'seed = 1\n\n[pairs.a]\ntarget = "t"\ndraft = "d"\n\n[pairs."b.c"]\ntarget = "t"\n'
    file = written(path, text)
    for missing in ("target", "pairs.a.seed", "pairs.none", "pairs.none.seed", "pairs.b"):
        assert not file.unset(missing)
    assert path.read_text() == text
    assert file.unset("pairs.a")
    assert file.unset("pairs.b.c.target")  # the last value takes the pair with it
    assert path.read_text().strip() == "seed = 1"
    assert file.unset("seed")
    assert (file.options, file.pairs) == ({}, {})


@pytest.mark.parametrize(("text", "key"), [("pairs = 3", "pairs"), ("[pairs]\nx = 3", "pairs.x")])
def test_a_value_in_the_place_of_a_table_is_named_and_can_be_removed(path: Path, text: str, key: str) -> None:
    file = written(path, text)
    with pytest.raises(UsageError, match=f"'{key}' in .* must be a table"):
        print(file.pairs)
    with pytest.raises(UsageError, match=f"'{key}' in .* must be a table"):
        ConfigFile(path).set("pairs.x.target", "t")
    assert not file.unset("pairs.x.target")
    assert path.read_text() == text
    assert file.unset(key)
    assert file.pairs == {}


@pytest.mark.parametrize("data", [b"target =", b"[[pairs", b'a = "\xff"', b"a = 1\na = 2"])
def test_what_is_not_toml_names_the_file(path: Path, data: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"config\.toml' is not valid TOML: .*; correct or remove it"):
        ConfigFile(path)


def test_a_file_that_cannot_be_read_or_written_is_named(path: Path) -> None:
    below = ConfigFile(path.parent / "file" / "config.toml")
    path.mkdir(parents=True)
    with pytest.raises(UsageError, match=r"cannot read the configuration '.*config\.toml': Is a directory"):
        ConfigFile(path)
    (path.parent / "file").touch()
    with pytest.raises(HsdError, match=r"cannot write the configuration '.*config\.toml': File exists"):
        below.set("seed", 1)


def test_an_edit_is_of_what_is_in_the_file_by_then(path: Path) -> None:
    one, other = ConfigFile(path), ConfigFile(path)
    one.set("seed", 1)
    other.set("top-k", 2)
    assert ConfigFile(path).options == {"seed": 1, "top-k": 2}
    assert one.unset("top-k")
    assert path.read_text() == "seed = 1\n"


def test_a_link_to_the_file_stays_a_link(path: Path, tmp_path: Path) -> None:
    dotfiles = tmp_path / "dotfiles.toml"
    dotfiles.touch()
    path.parent.mkdir()
    path.symlink_to(dotfiles)
    ConfigFile(path).set("seed", 1)
    assert path.is_symlink()
    assert dotfiles.read_text() == "seed = 1\n"


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("target", ["target"]),
        ("pairs.a.target", ["pairs", "a", "target"]),
        ("pairs.a.b.target", ["pairs", "a.b", "target"]),
        ("pairs.a", ["pairs.a"]),
        ("pairs..target", ["pairs..target"]),
        ("other.a.target", ["other.a.target"]),
    ],
)
def test_a_key_of_a_pair_has_three_parts(key: str, parts: list[str]) -> None:
    assert split_key(key) == parts
