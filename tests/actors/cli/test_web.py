"""`--web` with and without a place, and where a browser is opened."""

import sys
import webbrowser

import pytest

from actors.cli import web
from actors.cli.app import with_place
from actors.errors import InvalidRequest, SettingsError
from actors.settings import Settings


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("demo --web", "demo --web="),
        ("demo --web 8080", "demo --web 8080"),
        ("demo --web [::1]:80 --json", "demo --web [::1]:80 --json"),
        ("run --web prompts.txt", "run --web= prompts.txt"),
        ("run prompts.txt --web", "run prompts.txt --web="),
        ("-v run --web -p 8080", "-v run --web= -p 8080"),
        ("run --web=8080 prompts.txt", "run --web=8080 prompts.txt"),
        ("serve --web", "serve --web"),
        ("run prompts.txt", "run prompts.txt"),
        ("", ""),
    ],
)
def test_a_place_may_be_left_out_where_a_batch_is_shown(given, meant):
    assert with_place(given.split()) == meant.split()


def settings(**more):
    return Settings(_env_file=None, **more)


def test_without_a_place_it_is_the_one_that_is_set_or_a_free_port():
    assert web.listening_at(settings(), None).web_listen is None
    assert web.listening_at(settings(), "").web_listen == "0"
    assert web.listening_at(settings(web_listen="8081"), "").web_listen == "8081"
    assert web.listening_at(settings(web_listen="8081"), "8082").web_listen == "8082"


def test_a_wrong_place_is_refused_before_anything_is_made():
    with pytest.raises(InvalidRequest, match="--web 'x:y'"):
        web.listening_at(settings(), "x:y")
    with pytest.raises(SettingsError, match="WEB_TOKEN"):
        web.listening_at(settings(), "0.0.0.0:8080")


@pytest.mark.parametrize(
    ("platform", "display", "terminal", "opened"),
    [("linux", ":0", True, 1), ("linux", "", True, 0), ("linux", ":0", False, 0), ("darwin", "", True, 1)],
)
def test_a_browser_is_opened_only_where_a_person_sits_before_a_screen(monkeypatch, platform, display, terminal, opened):
    urls = []
    monkeypatch.setattr(webbrowser, "open", urls.append)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    web.open_browser("http://127.0.0.1:1/")
    assert len(urls) == opened
