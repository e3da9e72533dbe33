"""What can be typed in a chat, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from hsd_cli.chat.commands import ALIASES, COMMANDS, Effect, run
from hsd_cli.chat.completion import CommandCompleter
from hsd_cli.chat.conversation import Conversation, Turn
from hsd_cli.chat.entry import Command, is_open, parse
from hsd_cli.chat.session import Session
from hsd_cli.chat.settings import SETTINGS, Settings
from hsd_cli.engine import Engine
from hsd_cli.errors import HsdError
from hsd_cli.runtime.loading import LoadedModel, load_model
from tests.cli import checkpoint

Typing = Callable[[str], Effect]


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(checkpoint(tmp_path_factory.mktemp("letters")), "cpu")


@pytest.fixture
def session(letters: LoadedModel) -> Session:
    return Session(Engine(letters, None), Settings(), Conversation(), load_model)


@pytest.fixture
def typed(session: Session) -> Typing:
    def type_it(text: str) -> Effect:
        command = parse(text)
        assert isinstance(command, Command)
        return run(session, command)

    return type_it


# Messages and commands


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("  hello \n", "hello"),
        ("a\nb", "a\nb"),
        ("", ""),
        ('"""\n/a\n  b\n"""', "/a\n  b"),
        ('"""one line"""', "one line"),
        ('"""two\nlines', "two\nlines"),  # nothing comes that could end it
        ("//etc", "/etc"),
        ("/set top_k 3\n", Command("set", "top_k 3")),
        ("/system  Two  words ", Command("system", "Two  words")),
        ("/help", Command("help", "")),
        ("/", Command("", "")),
    ],
)
def test_what_is_typed_is_a_message_or_a_command(text: str, entry: Command | str) -> None:
    assert parse(text) == entry


@pytest.mark.parametrize(
    ("text", "more"), [('"""', True), ('  """a\nb', True), ('"""a"""', False), ('a """', False), ("", False)]
)
def test_a_block_goes_on_until_it_is_closed(text: str, more: bool) -> None:
    assert is_open(text) is more


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hlep", "did you mean /help?"),
        ("algoritm", "did you mean /algorithm?"),
        ("xyz", "/help lists them."),
        ("", "/help lists them."),
    ],
)
def test_an_unknown_command_is_told_of(typed: Typing, name: str, hint: str) -> None:
    with pytest.raises(HsdError) as refused:
        typed(f"/{name}")
    assert str(refused.value).startswith(f"no command /{name}; {hint}")
    assert str(refused.value).endswith("begin with //")


def test_help_names_everything(typed: Typing) -> None:
    everything = "\n".join(typed("/help").lines)
    assert all(f"/{name}" in everything and command.help in everything for name, command in COMMANDS.items())
    assert "Ctrl-D" in everything
    assert [line.split()[0] for line in typed("/? set").lines] == list(SETTINGS)
    assert len(typed("/help /save").lines) == 1
    assert set(ALIASES.values()) <= set(COMMANDS)


# Settings


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", ["0.7", "0"]),
        ("top_k", ["40"]),
        ("top_p", ["0.9"]),
        ("min_p", ["0.05"]),
        ("repetition_penalty", ["1.1"]),
        ("seed", ["0", "4294967295", "off"]),
        ("algorithm", ["lookup", "auto"]),
        ("lookahead", ["1", "auto"]),
        ("verification", ["rejection", "coupled", "auto"]),
        ("max_new_tokens", ["1", "100000"]),
        ("stop", ['"\\n\\n", "x"', '"the end"', "off"]),
        ("live", ["off", "on"]),
        ("stats", ["off", "on"]),
        ("history", ["off", "on"]),
    ],
)
def test_every_setting_is_shown_as_it_is_typed(typed: Typing, session: Session, name: str, values: list[str]) -> None:
    for value in values:
        assert typed(f"/set {name} {value}") == Effect([f"{name} is {value}"])
        assert session.settings.spelled(name) == value
        assert typed(f"/set {name}").lines[0].startswith(f"{name} is {value}; it can be ")
    assert set(SETTINGS) == {line.split()[0] for line in typed("/set").lines}


def test_settings_are_what_the_engine_takes(typed: Typing, session: Session) -> None:
    for line in ("temperature 0.5", "seed 7", 'stop "\\n", "b"', "lookahead 3", "live off"):
        typed(f"/set {line}")
    settings = session.settings
    assert (settings.sampling.temperature, settings.seed, settings.stop) == (0.5, 7, ("\n", "b"))
    assert (settings.lookahead, settings.live) == (3, False)
    typed("/set stop the end")
    typed("/set seed off")
    assert (session.settings.stop, session.settings.seed) == (("the end",), None)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("temperature -1", "temperature must be 0 (greedy) or at least 1e-5, not -1.0"),
        ("temperature hot", "temperature must be a number, not 'hot'"),
        ("top_p nan", "top_p must be above 0 and at most 1 (off), not nan"),
        ("top_k 1.5", "top_k must be a whole number, not '1.5'"),
        ("seed -1", "seed must be a whole number from 0 to 4294967295, or off, not '-1'"),
        ("lookahead off", "lookahead must be a whole number of at least 1, or auto, not 'off'"),
        ("algorithm fast", "algorithm must be one of auto, ar, "),
        ("verification both", "verification must be one of rejection, coupled, or auto, not 'both'"),
        ('stop "a', "stop must be "),
        ('stop ""', "stop must be "),
        ("live maybe", "live must be on or off, not 'maybe'"),
        ("heat 1", "no setting 'heat'; there are temperature, "),
        ("heat", "no setting 'heat'; there are temperature, "),
    ],
)
def test_what_cannot_be_set_is_one_line_and_changes_nothing(
    typed: Typing, session: Session, line: str, reason: str
) -> None:
    with pytest.raises(HsdError) as refused:
        typed(f"/set {line}")
    assert str(refused.value).startswith(reason)
    assert session.settings == Settings()


def test_the_algorithm_and_the_system_prompt_have_commands_of_their_own(typed: Typing, session: Session) -> None:
    assert typed("/algorithm lookup") == typed("/algorithm") == Effect(["algorithm is lookup"])
    assert session.settings.algorithm == "lookup"
    typed("/system Be  brief.")
    assert session.conversation.system == "Be  brief."
    assert typed("/system") == typed("/show system") == Effect(["system  Be  brief."])
    typed("/system none")
    assert session.conversation.system is None


# Models


def test_a_drafter_comes_and_goes(typed: Typing, session: Session, letters: LoadedModel) -> None:
    models = [f"target   {letters.name} (float32, cpu)", "drafter  none", "context  2048 tokens"]
    assert typed("/draft") == typed("/show models") == Effect(models)
    drafting = [models[0], f"drafter  {letters.name} (float32, cpu)", models[2]]
    assert typed(f"/draft {letters.name}") == Effect(drafting)
    with pytest.raises(HsdError, match="no embedded model"):
        typed("/draft embedded:nothing")
    assert typed("/draft") == Effect(drafting)
    assert typed("/draft none") == Effect(models)


# The conversation


def test_what_was_said_can_be_shown_saved_and_loaded(typed: Typing, session: Session, tmp_path: Path) -> None:
    file = tmp_path / "with blanks.json"
    assert typed("/show transcript") == Effect(["nothing was said yet"])
    session.conversation = Conversation("s", [Turn("one", "1"), Turn("two", "2")], left_out=1)
    shown = ["you (left out): one", "model (left out): 1", "you: two", "model: 2"]
    assert typed("/show transcript") == Effect(shown)
    assert typed(f"/save {file}") == typed(f"/save {file}") == Effect([f"saved to {str(file)!r}"])
    typed("/clear")
    assert session.conversation == Conversation("s")
    assert typed(f"/load {file}") == Effect(["2 turns so far; /show transcript shows them"])
    assert typed("/show transcript") == Effect(shown)
    session.engine = Engine(load_model("embedded:target", "cpu"), None)
    assert typed(f"/load {file}").lines[1].startswith("until now the target was ")


def test_only_chats_are_written_over(typed: Typing, session: Session, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(HsdError, match="exists, and it is no chat; choose another name"):
        typed(f"/save {notes}")
    assert notes.read_text() == "mine"
    with pytest.raises(HsdError, match="is not a chat"):
        typed(f"/load {notes}")
    for line in ("/save", "/load"):
        with pytest.raises(HsdError, match="which file"):
            typed(line)


def test_turns_are_taken_back_and_asked_again(typed: Typing, session: Session) -> None:
    for line in ("/undo", "/retry", "/edit"):
        with pytest.raises(HsdError, match="nothing was said yet"):
            typed(line)
    session.conversation.turns = [Turn("one", "1"), Turn("two", "2")]
    assert typed("/retry") == Effect(message="two", again=True)
    assert typed("/edit") == Effect(message="two", again=True, edit=True)
    assert typed("/undo") == Effect(["taken back: two"])
    assert session.conversation.turns == [Turn("one", "1")]


def test_the_totals_are_those_of_all_answers(typed: Typing, session: Session) -> None:
    assert typed("/stats") == Effect(["nothing was written yet"])
    session.settings = Settings(max_new_tokens=5, algorithm="ar")
    for question in ("abc", "abc"):
        list(session.ask(question))
    lines = typed("/stats").lines
    assert lines[0].split() == ["answers", "2"]
    assert lines[1].startswith("written   10 tokens in ")
    assert lines[3:] == ["passes    ar 100%", "per pass  1.00 tokens"]


def test_one_can_leave(typed: Typing) -> None:
    assert typed("/bye") == typed("/exit") == Effect(leave=True)


# The Tab key


def completed(text: str) -> list[str]:
    found = CommandCompleter().get_completions(Document(text), CompleteEvent(completion_requested=True))
    return [text[: len(text) + completion.start_position] + completion.text for completion in found]


def test_tab_completes_commands_and_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed("/s") == ["/set ", "/show ", "/system ", "/stats", "/save "]
    assert completed("/set top") == ["/set top_k ", "/set top_p "]
    assert completed("/set verification ") == [f"/set verification {v}" for v in ("rejection", "coupled", "auto")]
    assert completed("/algorithm sl") == ["/algorithm slem", "/algorithm slrs"]
    assert completed("/show t") == ["/show transcript"]
    assert completed("/? und") == ["/? undo"]
    for nothing in ("s", "", "hello /s", "//s", "/nothing ", "/set temperature ", "/set live on ", "/bye ", "/s\n/s"):
        assert completed(nothing) == []
    (tmp_path / "chat.json").touch()
    assert completed(f"/load {tmp_path}/ch") == [f"/load {tmp_path}/chat.json"]


def test_tab_completes_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models--some--model").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "/draft embedded:twin" in completed("/draft emb")
    assert completed("/draft so") == ["/draft some/model"]
    assert "/draft none" in completed("/draft ")
