"""GGUF files in repositories on the hub, by the name `owner/repo:folder/file.gguf`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.breadth import thorough
from tests.cli import Result, hsd
from tests.hub import Hub, Repository, use

pytest.importorskip("gguf", reason="needs hsd-cli[gguf]")

from gguf import GGMLQuantizationType

from hsd_cli.commands.suggestions import models as suggested
from hsd_cli.models.content import content_hash
from hsd_cli.models.hub_file import downloaded_file
from hsd_cli.models.locate import EMBEDDED_FOLDER
from hsd_cli.models.roles import remember_role, roles
from hsd_cli.models.snapshots import whole_snapshot
from hsd_cli.planner.candidates import local_drafters
from hsd_cli.ui.plan_figures import size
from tests.gguf_files import gguf_of

EXACT, SMALL, SPLIT = "model-F32.gguf", "small/model Q8_0.gguf", "model-00001-of-00003.gguf"
NAME, OTHER = f"some/model:{EXACT}", f"some/model:{SMALL}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("gguf")
    source = EMBEDDED_FOLDER / "drafter"
    return {
        EXACT: gguf_of(source, folder / "exact.gguf").read_bytes(),
        SMALL: gguf_of(source, folder / "small.gguf", GGMLQuantizationType.Q8_0).read_bytes(),
    }


@pytest.fixture
def model(made: dict[str, bytes]) -> Repository:
    return Repository({"README.md": b"about", ".gitattributes": b"", SPLIT: b"a part", **made})


@pytest.fixture
def hub(model: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub({"some/model": model}) as serving:
        use(serving, tmp_path, monkeypatch)
        yield serving


@pytest.fixture
def cache(hub: Hub, tmp_path: Path) -> Path:
    return tmp_path / "home" / "hub"


def generated(name: object) -> Result:
    return hsd("generate", "-q", "-t", name, "-n", 12, "import")


def in_use(name: str) -> bool:
    """Whether commands have all that they need of it."""
    return downloaded_file(name) is not None


def assert_one_line(result: Result, sentence: str, code: int = 1) -> None:
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("hsd: ")
    assert sentence in result.err
    assert result.err.count("\n") == 1


# Downloads


def test_one_file_is_pulled_and_runs_without_the_hub(
    hub: Hub, model: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = hsd("pull", NAME)
    assert result.err == f"hsd: {NAME}: {size(len(model.files[EXACT]))} downloaded\n"
    assert Path(result.out.strip()).relative_to(tmp_path).parts[-2:] == (model.commit, EXACT)
    assert hub.downloads == [(EXACT, None)]
    asked = len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    described = json.loads(hsd("generate", "--json", "-t", NAME, "-n", 12, "import").out)
    assert (described["text"], described["target"]["revision"]) == (generated("embedded:drafter").out, model.commit)
    assert generated(result.out.strip()).out == described["text"]
    assert len(hub.requests) == asked
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert hsd("pull", NAME).err == f"hsd: {NAME}: nothing to download\n"


def test_a_file_in_a_folder_drafts_and_is_compared(hub: Hub, model: Repository) -> None:
    described = json.loads(hsd("pull", "-q", "--json", OTHER).out)["models"][0]
    assert (described["id"], described["files"], described["bytes"]) == (OTHER, [SMALL], len(model.files[SMALL]))
    assert (Path(described["folder"]) / SMALL).read_bytes() == model.files[SMALL]
    run = json.loads(hsd("generate", "--json", "-d", OTHER, "-t", "embedded:target", "-a", "slem", "-n", 12, "im").out)
    assert run["accepted"] > 0
    assert json.loads(hsd("vocab-diff", "--json", OTHER, "embedded:drafter").out)["same_vocabulary"]
    assert hsd("plan", "--json", "embedded:target", OTHER).code == 0
    assert hsd("verify", "-q", OTHER, OTHER, "-a", "sd", "-n", 4, "--samples", 10).code == 0
    assert OTHER in local_drafters("embedded:target")
    assert content_hash(OTHER, read=False) is not None
    assert roles()[OTHER] == "drafter"


def test_what_is_missing_is_named_and_pulled_on_request(hub: Hub) -> None:
    advice = f"'{OTHER}' is not downloaded; run: hsd pull '{OTHER}'"
    for command in (["generate", "-t", OTHER, "a"], ["plan", OTHER, OTHER], ["vocab-diff", OTHER, OTHER]):
        assert_one_line(hsd(*command), advice)
    assert hub.downloads == []
    assert hsd("generate", "-q", "--pull", "-t", OTHER, "-n", 2, "import").code == 0
    assert hub.downloads == [(SMALL, None)]


def test_a_broken_download_goes_on(hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsd_cli.models.fetch.PAUSE", 0)
    model.breaking[EXACT] = [1000, *[0] * 10]
    assert_one_line(hsd("pull", NAME), f"check the network, then run: hsd pull {NAME}")
    listed = json.loads(hsd("list", "--json").out)["models"]
    assert [(entry["id"], entry["bytes"], entry["state"]) for entry in listed] == [
        ("some/model", 1000, "partly downloaded")
    ]
    model.breaking.clear()
    hub.requests.clear()
    assert hsd("pull", NAME).code == 0
    assert hub.downloads == [(EXACT, "bytes=1000-")]


def test_what_arrives_damaged_is_deleted(hub: Hub, model: Repository) -> None:
    model.damaged.add(SMALL)
    assert_one_line(hsd("pull", OTHER), f"run again: hsd pull '{OTHER}'")
    assert_one_line(generated(OTHER), "is not downloaded")


def test_another_revision_is_used_by_its_path(hub: Hub, model: Repository) -> None:
    model.revisions = ("main", "v1")
    path = hsd("pull", "-q", NAME, "--revision", "v1").out.strip()
    assert Path(path).read_bytes() == model.files[EXACT]
    assert_one_line(generated(NAME), "is not downloaded")
    assert_one_line(hsd("pull", NAME, "--revision", "v2"), f"see {hub.address}/some/model/tree/main")


def test_a_newer_commit_takes_no_unchanged_model_out_of_use(hub: Hub, model: Repository) -> None:
    hsd("pull", "-q", NAME)
    model.files["README.md"] += b" more"
    hsd("pull", "-q", OTHER)
    assert in_use(NAME)
    assert in_use(OTHER)
    assert [name for name, _ in hub.downloads] == [EXACT, SMALL]


@thorough
def test_both_formats_of_one_repository(hub: Hub, model: Repository) -> None:
    model.files |= {path.name: path.read_bytes() for path in (EMBEDDED_FOLDER / "drafter").iterdir()}
    hsd("pull", "-q", "some/model")
    for name in (NAME, "some/model"):
        model.files["README.md"] += b" more"
        hsd("pull", "-q", name)
        assert whole_snapshot("some/model")
    assert in_use(NAME)
    assert len(hub.downloads) == len({name for name, _ in hub.downloads})


# Names


def test_a_repository_that_is_named_without_a_file_tells_its_files(hub: Hub, model: Repository) -> None:
    for command in (["pull", "some/model"], ["generate", "--pull", "-t", "some/model", "a"]):
        assert_one_line(
            hsd(*command),
            f"has GGUF files only; name one of them, such as {NAME} (it has {EXACT}, {SMALL})",
        )
    model.files |= {f"m{number}.gguf": b"" for number in range(20)}
    assert " m5.gguf and 14 more)" in hsd("pull", "some/model").err
    assert_one_line(hsd("pull", "some/model:none.gguf"), f"'some/model' has no file 'none.gguf'; it has {EXACT}, ")


def test_a_repository_of_split_files_alone(hub: Hub) -> None:
    hub.repositories["some/parts"] = Repository({SPLIT: b"a part"})
    assert_one_line(hsd("pull", "some/parts"), "'some/parts' has no model.safetensors")
    assert_one_line(hsd("pull", "some/parts:x.gguf"), "has no file 'x.gguf'; there is no other GGUF file in one piece")


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("../x.gguf", "names no file of a repository; give its path there"),
        ("a/../../x.gguf", "names no file of a repository"),
        ("/etc/x.gguf", "names no file of a repository"),
        ("a//x.gguf", "names no file of a repository"),
        ("..\\x.gguf", "names no file of a repository"),
        ("./x.gguf", "names no file of a repository"),
        (SPLIT, "is one of several files; run: hf download some/model, make one of them: llama-gguf-split --merge"),
        ("Q4_K_M", "no folder 'some/model:Q4_K_M'"),
        ("config.json", "(for a GGUF file there: owner/repo:file.gguf)"),
        ("", "no folder 'some/model:'"),
    ],
)
def test_names_that_are_refused_before_anything_is_asked(hub: Hub, file: str, sentence: str) -> None:
    name = f"some/model:{file}"
    for command in (["pull", name], ["generate", "--pull", "-t", name, "a"], ["plan", name, name]):
        assert_one_line(hsd(*command), sentence)
    assert hub.requests == []


def test_what_the_hub_lists_leads_nowhere_else(hub: Hub, model: Repository) -> None:
    del model.files[EXACT], model.files[SMALL]
    model.files["../../outside.gguf"] = b"x"
    assert_one_line(hsd("pull", "some/model"), "'some/model' has no model.safetensors")


def test_tokenizer_only_does_not_go_with_one_file(hub: Hub) -> None:
    assert_one_line(hsd("pull", "--tokenizer-only", NAME), "leave --tokenizer-only out", code=2)


def test_a_file_of_that_name_on_this_machine_comes_first(
    hub: Hub, made: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / f"model:{EXACT}").write_bytes(made[EXACT])
    assert generated(NAME) == generated("embedded:drafter")
    assert_one_line(hsd("pull", NAME), "is on this machine already", code=2)
    assert hub.requests == []


# The list, and what is deleted


def test_list_and_suggestions_have_the_names_that_people_type(hub: Hub, model: Repository) -> None:
    hsd("pull", "-q", NAME, OTHER)
    remember_role(NAME, "target")
    listed = json.loads(hsd("list", "--json").out)["models"]
    assert [(entry["id"], entry["bytes"], entry["role"], entry["state"]) for entry in listed] == [
        (NAME, len(model.files[EXACT]), "target", "whole"),
        (OTHER, len(model.files[SMALL]), None, "whole"),
    ]
    assert [name for name in suggested() if name.startswith("some")] == [NAME, OTHER]


def test_rm_deletes_one_file_and_the_last_one_with_the_repository(hub: Hub, model: Repository, cache: Path) -> None:
    hsd("pull", "-q", NAME, OTHER)
    (cache / "models--some--model" / "blobs" / f"{'f' * 64}.incomplete").write_bytes(b"broken off")
    freed = hsd("rm", "-y", NAME)
    assert freed.err.splitlines()[0].startswith(f"hsd: deleting {NAME} (")
    assert hsd("list", "-q").out.splitlines() == ["some/model", OTHER]
    assert_one_line(generated(NAME), "is not downloaded")
    assert in_use(OTHER)
    assert not (cache / "models--some--model" / "blobs" / model.digest(EXACT)).exists()
    assert hsd("rm", "-q", "-y", "some/model").code == 0
    assert in_use(OTHER)
    assert hsd("rm", "-q", "-y", OTHER).code == 0
    assert not (cache / "models--some--model").exists()


def test_rm_leaves_what_another_name_needs_as_well(hub: Hub, model: Repository) -> None:
    model.files["copy.gguf"] = model.files[EXACT]
    hsd("pull", "-q", NAME, "some/model:copy.gguf")
    assert hsd("rm", "-q", "-y", "some/model:copy.gguf").code == 0
    assert Path(downloaded_file(NAME) or "").read_bytes() == model.files[EXACT]
