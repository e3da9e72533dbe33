"""One text for each file: which files, what is asked about them, and where the texts go."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hsd_cli.batch.files import check_template, destinations, file_records, fill
from hsd_cli.batch.paths import expand
from hsd_cli.batch.records import Failure, Record, derived_seed
from hsd_cli.engine import Request
from hsd_cli.errors import HsdError, UsageError
from tests.cli import Result, checkpoint, hsd


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Continues the alphabet: `a` with `bcd...`. Its context holds 50 letters."""
    return checkpoint(tmp_path_factory.mktemp("letters"), context=50)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(**contents: str) -> list[Path]:
    """Files with these contents; ``a__b_txt`` is `a/b.txt`."""
    made = []
    for name, content in contents.items():
        path = Path(name.replace("__", "/").replace("_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        made.append(path)
    return made


def names(*patterns: str) -> list[str]:
    return list(map(str, expand(list(map(Path, patterns)))))


# Which files


@pytest.mark.usefixtures("folder")
def test_patterns_stand_for_files_in_order_of_name_each_once() -> None:
    files(b_txt="", a_txt="", c_md="", d__e_txt="", d__f__g_txt="", d__h_txt__i="")
    assert names("c.md", "*.txt") == ["c.md", "a.txt", "b.txt"]
    assert names("b.txt", "*.txt", "./a.txt") == ["b.txt", "a.txt"]
    assert names("**/*.txt") == ["a.txt", "b.txt", "d/e.txt", "d/f/g.txt"]
    assert names("d/*") == ["d/e.txt"]
    assert names("?.[tm]*") == ["a.txt", "b.txt", "c.md"]


@pytest.mark.usefixtures("folder")
def test_a_file_whose_name_looks_like_a_pattern_is_that_file() -> None:
    Path("[a].txt").touch()
    files(a_txt="")
    assert names("[a].txt") == ["[a].txt"]


@pytest.mark.parametrize(
    ("pattern", "kind", "message"),
    [
        ("*.txt", UsageError, r"no file matches '\*\.txt'"),
        ("no.txt", HsdError, r"cannot read 'no\.txt': No such file or directory"),
        ("d", HsdError, r"cannot read 'd': Is a directory; 'd/\*' are the files in it"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_no_file_is_said(pattern: str, kind: type[HsdError], message: str) -> None:
    files(d__e_md="")
    with pytest.raises(kind, match=f"^{message}$"):
        expand([Path(pattern)])


# What is asked


def test_a_template_has_places_for_text_and_name_and_all_else_as_it_is() -> None:
    template = r'{name}:\n{"json": {}} \\n {text}\t{text} {nothing} {text }'
    assert fill(template, "{name} \\n", "n") == 'n:\n{"json": {}} \\n {name} \\n\t{name} \\n {nothing} {text }'
    check_template(template)
    with pytest.raises(UsageError, match=r"--template needs \{text\}"):
        check_template("{txt}")


@pytest.mark.usefixtures("folder")
def test_a_prompt_follows_the_text_or_the_template() -> None:
    paths = files(a_txt="text\n\n", d__b_txt="other")
    base = Request(prompt="", seed=3)

    def prompts(prompt: str | None, template: str | None) -> list[Any]:
        return [
            record.request.prompt if isinstance(record, Record) else record
            for record in file_records(paths, prompt, template, base, "model", None)
        ]

    assert prompts("Summarise.", None) == ["text\n\nSummarise.", "other\n\nSummarise."]
    assert prompts(None, None) == ["text\n\n", "other"]
    assert prompts(None, "{name}: {text}") == ["a.txt: text\n\n", "b.txt: other"]
    assert prompts("End.", "{name}: {text}") == ["a.txt: text\n\nEnd.", "b.txt: other\n\nEnd."]
    seeds = [
        record.request.seed for record in file_records(paths, "x", None, base, "m", None) if isinstance(record, Record)
    ]
    assert seeds == [derived_seed(3, "a.txt"), derived_seed(3, "d/b.txt")]


@pytest.mark.usefixtures("folder")
def test_a_file_that_cannot_be_read_or_is_empty_is_a_failure_of_its_own() -> None:
    paths = [*files(a_txt="", b_txt="x"), Path("c.txt")]
    empty, good, missing = file_records(paths, None, None, Request(prompt=""), "model", None)
    assert empty == Failure("a.txt", 1, "the file is empty")
    assert isinstance(good, Record)
    assert missing == Failure("c.txt", 3, "cannot read it: No such file or directory")


# Where the texts go


@pytest.mark.usefixtures("folder")
def test_texts_go_beside_their_files_or_into_a_folder_as_the_files_lie() -> None:
    paths = files(a__b_txt="", a__c__b_txt="", a__c__b_md="")
    assert destinations(paths, None) == [Path("a/b.txt.out"), Path("a/c/b.txt.out"), Path("a/c/b.md.out")]
    assert destinations(paths, Path("out")) == [Path("out/b.txt"), Path("out/c/b.txt"), Path("out/c/b.md")]
    assert destinations([Path("../x/b.txt")], Path("out")) == [Path("out/b.txt")]


@pytest.mark.usefixtures("folder")
def test_a_text_never_takes_the_place_of_a_file_that_was_read() -> None:
    a, out = files(a_txt="", a_txt_out="")
    with pytest.raises(UsageError, match=r"text of 'a\.txt' would overwrite 'a\.txt\.out', which is an input too"):
        destinations([a, out], None)
    with pytest.raises(UsageError, match=r"text of 'a\.txt' would overwrite 'a\.txt', which is an input too"):
        destinations([a], Path("."))
    Path("linked").mkdir()
    Path("linked/a.txt").symlink_to(a.absolute())
    with pytest.raises(UsageError, match="which is an input too"):
        destinations([a], Path("linked"))


@pytest.mark.usefixtures("folder")
def test_no_text_leaves_the_folder_through_a_link() -> None:
    paths = files(a__b_txt="", a__c__d_txt="")
    Path("out").mkdir()
    Path("elsewhere").mkdir()
    Path("out/c").symlink_to(Path("elsewhere").absolute())
    with pytest.raises(UsageError, match=r"'out/c/d\.txt' is a link that leads out of 'out'; remove it"):
        destinations(paths, Path("out"))


# From the command line


def each(letters: str, *arguments: object) -> Result:
    return hsd("generate", "-t", letters, "-n", 3, *arguments)


@pytest.mark.usefixtures("folder")
def test_texts_come_one_after_another_under_the_names_of_their_files(letters: str) -> None:
    files(a_txt="ab", b_txt="k", c_txt="v")
    assert each(letters, "-q", "-f", "*.txt", "--template", "{text}") == (
        0, "==> a.txt <==\ncde\n\n==> b.txt <==\nlmn\n\n==> c.txt <==\nwxy\n", ""
    )  # fmt: skip
    assert each(letters, "-q", "-f", "a.txt", "--template", "{text}") == (0, "cde", "")
    done = each(letters, "-f", "*.txt", "--template", "{text}", "-o", "all")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("hsd: 3 texts · 9 tokens in ")
    assert Path("all").read_text().startswith("==> a.txt <==\ncde\n")


@pytest.mark.usefixtures("folder")
def test_json_is_an_object_for_each_file(letters: str) -> None:
    files(a_txt="ab", b_txt="")
    done = each(letters, "-q", "-f", "*.txt", "--template", "{text}", "--json")
    assert (done.code, done.err) == (1, "hsd: b.txt: the file is empty\nhsd: 1 of 2 files failed\n")
    first, second = map(json.loads, done.out.splitlines())
    assert (first["id"], first["text"], first["finish_reason"]) == ("a.txt", "cde", "length")
    assert second == {"id": "b.txt", "line": 2, "error": "the file is empty"}


@pytest.mark.usefixtures("folder")
def test_texts_go_to_files_and_old_texts_are_replaced(letters: str) -> None:
    files(d__a_txt="ab", d__e__b_txt="k")
    for _ in range(2):
        assert each(letters, "-q", "-f", "d/**/*.txt", "--output-dir", "new/out") == (0, "", "")
        assert Path("new/out/a.txt").read_text() == "cde"
        assert Path("new/out/e/b.txt").read_text() == "lmn"
        assert each(letters, "-q", "-f", "d/**/*.txt", "--beside") == (0, "", "")
        assert Path("d/a.txt.out").read_text() == "cde"
        assert Path("d/e/b.txt.out").read_text() == "lmn"
    assert each(letters, "-q", "-f", "d/a.txt", "--beside", "--json") == (0, "", "")
    assert json.loads(Path("d/a.txt.out").read_text())["text"] == "cde"


@pytest.mark.usefixtures("folder")
def test_what_one_file_cannot_have_does_not_stop_the_others(letters: str) -> None:
    files(a_txt="ab", b_txt="x" * 60, c_txt="k")
    Path("b.txt.out").write_text("old")
    done = each(letters, "-q", "-f", "*.txt", "--beside")
    reason = "the prompt has 60 tokens and the target's context holds 50; shorten it"
    assert done == (1, "", f"hsd: b.txt: {reason}\nhsd: 1 of 3 files failed\n")
    assert [Path(f"{name}.txt.out").read_text() for name in "abc"] == ["cde", "old", "lmn"]


@pytest.mark.usefixtures("folder")
def test_a_name_cannot_pose_as_a_heading_of_its_own(letters: str) -> None:
    files(a_txt="ab")
    Path("x\n\x1b[2J").write_text("k")
    (Path(os.fsdecode(b"\xff"))).write_text("k")
    done = each(letters, "-q", "-f", "*", "--template", "{text}")
    assert done.code == 0
    assert [line for line in done.out.splitlines() if line.startswith("==>")] == [
        "==> a.txt <==", r"==> x\n\x1b[2J <==", r"==> \xff <=="
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["-f", "*.md", "--beside"], 2, "no file matches '*.md'"),
        (["-f", "no.txt", "--beside"], 1, "cannot read 'no.txt': No such file or directory"),
        (["-f", "a.txt", "--template", "Summarise:"], 2, "--template needs {text} where the file's text goes"),
        (["--beside"], 2, "--template, --beside and --output-dir are about files; name them with --file"),
        (["-f", "a.txt", "--output-dir", "."], 2, "would overwrite 'a.txt', which is an input too"),
        (["-f", "a.txt", "--beside", "-o", "x"], 2, "--beside, --output-dir and --output say three places for the"),
        (["-f", "a.txt", "--output-dir", "a.txt/x"], 1, "cannot make the folder 'a.txt/x': Not a directory"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_right_is_one_line(arguments: list[str], code: int, sentence: str, letters: str) -> None:
    files(a_txt="ab")
    (Path(letters) / "model.safetensors").rename("weights")  # none of this waits for them
    done = hsd("generate", "-q", "-t", letters, *arguments)
    Path("weights").rename(Path(letters) / "model.safetensors")
    assert (done.code, done.out) == (code, "")
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert Path("a.txt").read_text() == "ab"
