"""The page of ``hsd serve``, in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import CHROMIUM, Browser
from tests.cli import checkpoint, hsd
from tests.serving import Server

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome")
ATTACK = "<img src=x onerror=alert(1)>"
KEY = "open sesame"
PROMPT = "class Stack:\n"
IDLE = "!document.getElementById('write').disabled"
TEXT = "document.getElementById('text').textContent"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "browser") as running:
        yield running


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Writes nothing but markup, without an end; needs a key, and has a chat template."""
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokens = ["a", ATTACK, "b"]
    model = checkpoint(tmp_path_factory.mktemp("hostile"), tokens, context=60_000, chat_template=template)
    options = ["--max-new-tokens", 50_000, "--batch-size", 1, "--api-key", KEY]
    with Server("-t", model, *options, key=KEY, fork=True) as running:
        yield running


def test_a_text_comes_with_its_origins_and_figures(browser: Browser) -> None:
    run = json.loads(hsd("generate", "-q", "--json", "-n", 60, PROMPT).out)
    with Server("-a", "slem", "--lookahead", 4, fork=True) as server:
        browser.open(server.url)
        browser.wait_for("document.title === 'hsd: embedded:target'")
        browser.type_into("prompt", PROMPT)
        browser.type_into("tokens", "60")
        browser.click("write")
        browser.wait_for(f"{IDLE} && document.getElementById('count').textContent === '60'")
        origins = browser.value("[...document.querySelectorAll('#text span')].map(e => [e.textContent, e.className])")
        asked = {"model": "embedded:target", "prompt": PROMPT, "max_tokens": 60, "temperature": 0, "stream": True}
        events = server.post("/v1/completions", asked).text.split("data: ")[1:-1]
        passes = browser.value("document.getElementById('per-pass').textContent")
    assert browser.value(TEXT) == run["text"]
    pieces = [piece for event in events for piece in json.loads(event)["hsd"]["pieces"]]
    assert origins == [[text, "drafted" if drafted else ""] for text, drafted in pieces]
    assert {name for _, name in origins} == {"", "drafted"}
    assert float(passes) > 1
    assert browser.value("document.getElementById('acceptance').textContent").endswith("%")
    colours = "['.drafted', 'pre'].map(e => getComputedStyle(document.querySelector(e)).color)"
    assert len(set(browser.value(colours))) == 2
    assert browser.complaints() == []
    assert {url.removeprefix(server.url) for url in browser.requested() if not url.startswith("data:")} == {
        "/", "/page.js", "/page.css", "/v1/models", "/v1/completions"
    }  # fmt: skip


def test_the_page_asks_for_the_key_and_shows_markup_as_text(browser: Browser, hostile: Server) -> None:
    browser.open(hostile.url)
    browser.wait_for("!document.getElementById('key-row').hidden")
    assert browser.value("document.getElementById('problem').textContent") == "the API key is missing or wrong"
    browser.type_into("prompt", "a")
    browser.type_into("tokens", "3")
    browser.type_into("key", "sesame")
    browser.click("write")
    browser.wait_for(IDLE)
    assert browser.value(TEXT) == ""
    browser.type_into("key", KEY)
    browser.click("write")
    browser.wait_for(f"{IDLE} && {TEXT} !== ''")
    assert browser.value(TEXT) == f"{ATTACK}ba"
    assert browser.value("document.images.length") == 0
    assert browser.value("document.getElementById('chat').checked")  # there is a template
    assert browser.value("document.getElementById('problem').hidden")
    assert any(url.endswith("/v1/chat/completions") for url in browser.requested())


def test_stop_ends_the_text_on_the_server_too(browser: Browser, hostile: Server) -> None:
    browser.open(hostile.url)
    browser.wait_for("!document.getElementById('key-row').hidden")
    browser.type_into("key", KEY)
    browser.type_into("prompt", "a")
    browser.type_into("tokens", "50000")
    browser.click("write")
    browser.wait_for(f"{TEXT} !== ''")
    browser.click("stop")
    browser.wait_for(IDLE)
    hostile.until("hsd_texts_running", 0)
    assert hostile.metric("hsd_texts_total", reason="gone") == 1
    assert browser.value("document.getElementById('problem').hidden")


def test_nothing_else_can_run_in_the_page_or_frame_it(browser: Browser, hostile: Server) -> None:
    policy = hostile.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
    assert "frame-ancestors 'none'" in policy
    browser.open(hostile.url)
    browser.value("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    browser.value("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title=2'}))")
    browser.wait_for("document.images.length === 1")
    assert browser.value("document.title") == "hsd"
    assert "Content Security Policy" in json.dumps(browser.complaints())
