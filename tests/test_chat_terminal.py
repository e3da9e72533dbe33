"""`hsd chat` as people use it: in a real terminal, and in a pipe."""

from __future__ import annotations

import json
import stat
from io import BytesIO
from pathlib import Path
from string import ascii_lowercase

import pytest

from hsd_cli.chat.reader import LineReader, PrivateHistory
from hsd_cli.errors import HsdError
from tests.cli import LETTERS, checkpoint, hsd
from tests.terminal import HsdTerminal, Terminal
from tests.test_caches_between_texts import TEMPLATE

ENDLESS = 60_000


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Says the alphabet from its beginning."""
    folder = tmp_path_factory.mktemp("talker")
    return checkpoint(folder, [*LETTERS, "<turn>"], special=["<turn>"], chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Goes on with the alphabet as long as it may. It has no chat template."""
    return checkpoint(tmp_path_factory.mktemp("plain"), context=ENDLESS + 100)


@pytest.fixture(autouse=True)
def history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "history"
    monkeypatch.setenv("HSD_HISTORY", str(folder))
    return folder


def chat(*options: str, **environment: str) -> Terminal:
    return HsdTerminal("chat", *options, rows=40, columns=100, environment=environment)


def wait_for_prompt(terminal: Terminal) -> None:
    terminal.wait_for(lambda: terminal.lines[terminal.screen.cursor.y] == ">>>")


# A terminal


def test_a_first_session(plain: str, history: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "xyz" > "$1"\n')
    editor.chmod(0o700)
    with chat("-t", plain, "-n", "5", "-a", "ar", VISUAL=str(editor)) as terminal:
        wait_for_prompt(terminal)
        header = "".join(terminal.lines).replace(" ", "")  # however the rows are wrapped
        assert f"{plain}·ar·cpu,float32" in header
        assert f"{plain}hasnochattemplate:theconversationiscontinuedasplaintext" in header
        assert "context 60100 tokens · /help shows what can be typed" in terminal.lines

        terminal.send("abc\r")
        terminal.wait_for("ended by length")
        wait_for_prompt(terminal)
        assert "abcde" in terminal.lines
        assert any(line.startswith("5 tokens in ") for line in terminal.lines)

        terminal.send("/sta\t")
        terminal.wait_for(">>> /stats")
        terminal.send("\r")
        terminal.wait_for("answers   1")
        terminal.send("/set stats of\t")
        terminal.wait_for(">>> /set stats off")
        terminal.send("\r")
        terminal.wait_for("stats is off")
        terminal.send("/hlp\r")
        terminal.wait_for("hsd: no command /hlp; did you mean /help?")

        terminal.send('"""a\rb"""\r')
        terminal.wait_for(lambda: terminal.lines.count("abcde") == 2)
        assert [line for line in terminal.lines if line.endswith(("a", 'b"""'))][-2:] == ['>>> """a', '... b"""']
        wait_for_prompt(terminal)
        terminal.send("c\x1b\rd")
        terminal.wait_for("... d")
        terminal.send("\r")
        terminal.wait_for(lambda: terminal.lines.count("abcde") == 3)
        wait_for_prompt(terminal)

        terminal.send("\x1b[200~pasted\nlines\n\x1b[201~")  # a paste waits for Enter
        terminal.wait_for("... lines")
        terminal.send("\x03")  # Ctrl-C clears what is typed
        wait_for_prompt(terminal)
        terminal.send("\x03")
        terminal.wait_for("Ctrl-D or /bye leaves")

        terminal.send("/edit\r")
        terminal.wait_for(">>> xyz")
        terminal.wait_for(lambda: terminal.lines.count("abcde") == 4)
        wait_for_prompt(terminal)

        terminal.send("/set stats on\r")
        terminal.wait_for("stats is on")
        terminal.send(f"/set max_new_tokens {ENDLESS}\r")
        terminal.wait_for(f"max_new_tokens is {ENDLESS}")
        terminal.send("go\r")
        terminal.wait_for(lambda: terminal.lines.count(ascii_lowercase) > 3)
        terminal.send("\x03")  # ends the answer, not the chat
        terminal.wait_for("ended by interrupt")
        wait_for_prompt(terminal)
        terminal.send("/clear\r")
        terminal.wait_for("the conversation is forgotten")
        terminal.send("/set max_new_tokens 3\r")
        terminal.wait_for("max_new_tokens is 3")
        terminal.send("again\r")
        terminal.wait_for(lambda: "abc" in terminal.lines)
        wait_for_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0

    kept = json.loads((history / "last-chat.json").read_text())
    assert [message["content"] for message in kept["messages"]] == ["again", "abc"]
    assert {path.name for path in history.iterdir()} == {"history", "last-chat.json"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in history.iterdir())
    assert "\n+again\n" in (history / "history").read_text()
    assert "pasted" not in (history / "history").read_text()


def test_a_second_session_goes_on(talker: str, history: Path) -> None:
    hsd("chat", "-q", "-t", talker, "-n", 3, stdin=b"first\n")
    history.joinpath("history").write_text("\n# then\n+before\n")
    with chat("-n", "4", "--continue", "--no-live") as terminal:
        wait_for_prompt(terminal)
        assert f"{talker} · auto" in "".join(terminal.lines)
        assert "1 turn so far; /show transcript shows them" in terminal.lines
        terminal.send("\x1b[A")  # Up
        terminal.wait_for(">>> before")
        terminal.send("\r")
        terminal.wait_for("ended by length")
        assert "abcd" in terminal.lines
        wait_for_prompt(terminal)
        terminal.send("/set history off\r")
        terminal.wait_for("history is off")
        terminal.send("secret\r")
        terminal.wait_for(lambda: terminal.text.count("ended by length") == 2)
        wait_for_prompt(terminal)
        terminal.send("/bye\r")
        assert terminal.wait() == 0
    kept = json.loads((history / "last-chat.json").read_text())
    assert [message["content"] for message in kept["messages"]] == ["first", "abc", "before", "abcd"]
    assert "secret" not in (history / "history").read_text()
    assert stat.S_IMODE((history / "history").stat().st_mode) == 0o600


def test_the_history_is_private_from_its_first_line(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "history"
    history = PrivateHistory(file, wanted=False)
    history.append_string("secret")
    assert not file.parent.exists()
    history.wanted = True
    history.append_string("known")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert list(PrivateHistory(file, wanted=True).load_history_strings()) == ["known"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(PrivateHistory(file, wanted=False).load_history_strings()) == []
    with pytest.raises(HsdError, match="use --no-history"):
        PrivateHistory(file / "none", wanted=True)


def test_a_terminal_that_can_only_write_lines_gets_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    reader = LineReader(BytesIO(b'hello\n"""a\nb"""\n'), interactive=True, repairing=None)
    assert [reader.read(keep=True) for _ in range(2)] == ["hello\n", '"""a\nb"""\n']
    with pytest.raises(EOFError):
        reader.read(keep=True)
    assert capsys.readouterr().err == ">>> >>> ... >>> "


# A pipe


def test_lines_of_a_pipe_are_messages_and_commands(talker: str) -> None:
    lines = b'abc\n\n/set max_new_tokens 2\n"""\nx\ny\n"""\n//z\n/bye\nnever\n'
    result = hsd("chat", "-q", "-t", talker, "-n", 5, stdin=lines)
    assert result == (0, "abcde\nab\nab\n", "max_new_tokens is 2\n")
    shown = hsd("chat", "-q", "-t", talker, "--continue", stdin=b"/show transcript")
    questions = [line for line in shown.err.splitlines() if not line.startswith("model")]
    assert questions == ["you: abc", "you: x", "y", "you: /z"]


def test_statistics_and_talk_go_to_stderr(talker: str) -> None:
    result = hsd("chat", "-t", talker, "-n", 5, stdin=b"abc")
    assert (result.code, result.out) == (0, "abcde\n")
    assert result.err.startswith("5 tokens in ")
    assert result.err.count("\n") == 1
    assert hsd("chat", "--no-stats", "-t", talker, "-n", 5, stdin=b"abc") == (0, "abcde\n", "")


def test_what_fails_is_one_line_and_the_rest_goes_on(talker: str) -> None:
    result = hsd("chat", "-q", "-t", talker, "-n", 2, "-s", "k", stdin=b"/set top_p 7\nabc\n/edit\nabc\xff\n")
    assert (result.code, result.out) == (1, "ab\nab\n")
    assert result.err.splitlines() == [
        "hsd: top_p must be above 0 and at most 1 (off), not 7.0",
        "hsd: an editor needs a terminal that can move its cursor",
    ]


def test_what_is_left_out_is_announced(tmp_path: Path) -> None:
    small = checkpoint(tmp_path, [*LETTERS, "<turn>"], special=["<turn>"], chat_template=TEMPLATE, context=64)
    result = hsd("chat", "-t", small, "--no-stats", "-n", 8, stdin=b"klmn\n" * 6)
    assert (result.code, result.out) == (0, "abcdefgh\n" * 6)
    assert result.err == "the 2 oldest turns no longer fit into the context of 64 tokens: left out\n"


def test_nothing_is_kept_if_so_wished(talker: str, history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["chat", "-q", "-t", talker, "-n", 2]
    assert hsd(*options, "--no-history", stdin=b"abc").out == "ab\n"
    monkeypatch.setenv("HSD_NOHISTORY", "1")
    assert hsd(*options, stdin=b"abc").out == "ab\n"
    assert not history.exists()
    assert hsd(*options, "--continue") == (2, "", "hsd: there is no last chat to go on with; leave --continue out\n")


def test_a_chat_is_loaded_from_a_file(talker: str, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    options = ["chat", "-t", talker, "-n", 2, "--no-stats"]
    assert hsd(*options, stdin=f"abc\n/save {file}\n".encode()).err == f"saved to {str(file)!r}\n"
    result = hsd(*options, "--load", file, stdin=b"klm\n/undo\n/retry\n")
    assert (result.code, result.out) == (0, "ab\nab\n")
    assert result.err == "1 turn so far; /show transcript shows them\ntaken back: klm\n"
    both = hsd(*options, "--load", file, "--continue")
    assert both.code == 2
    assert hsd(*options, "--load", tmp_path / "none").err.startswith("hsd: cannot read ")
