"""Every setting: its name, its default, what it takes, and what it says to what it does not take."""

import traceback
from datetime import timedelta

import pytest
from pydantic import SecretStr, ValidationError

from actors.errors import SettingsError
from actors.settings import Settings, load_settings

DEFAULTS = {
    "OPENAI_BASE_URL": None,
    "OPENAI_API_KEY": None,
    "SORA_MODEL": None,
    "SORA_SIZE": None,
    "SORA_SECONDS": None,
    "SORA_REQUEST_FORMAT": "multipart",
    "SORA_POLL_INTERVAL": timedelta(milliseconds=2000),
    "SORA_MAX_IN_FLIGHT": None,
    "SORA_MAX_REQUESTS_PER_SECOND": None,
    "SORA_SUBMIT_TIMEOUT": timedelta(milliseconds=60_000),
    "SORA_SETTLE": timedelta(milliseconds=5000),
    "SORA_LISTING": "partial",
    "SORA_VIDEO_TIMEOUT": timedelta(milliseconds=3_600_000),
    "SORA_PAID_ATTEMPTS": 1,
    "SORA_UNKNOWN_SUBMISSION": "fail",
    "SORA_DELETE_ON_CANCEL": "auto",
    "SORA_REFERENCE_HOSTS": (),
    "SORA_REFERENCE_DIRS": (),
    "BATCH_MAX_SIZE": 10,
    "BATCH_CONCURRENCY": 3,
    "BATCH_PARALLEL": 50,
    "BATCH_TIMEOUT": timedelta(milliseconds=300_000),
    "BATCH_LEASE": timedelta(milliseconds=15_000),
    "PROGRESS_INTERVAL": timedelta(milliseconds=1000),
    "DATABASE_URL": "sqlite:///sora-batch.db",
    "AMQP_URL": None,
    "AMQP_QUEUE_TYPE": "quorum",
    "COMMAND_MAX_BYTES": 1_048_576,
    "COMMAND_KEEP": timedelta(days=7),
    "VIDEO_DIR": "videos",
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "text",
}
SECRET = "sk-very-secret"


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch, tmp_path):
    """A folder without `.env`, an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def given(monkeypatch):
    def given(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return given


def test_each_setting_is_known_here():
    assert {name.upper() for name in Settings.model_fields} == set(DEFAULTS)


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_setting_has_its_default(name):
    assert getattr(load_settings(), name.lower()) == DEFAULTS[name]


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_empty_variable_is_an_unset_one(given, name):
    assert getattr(given(**{name: ""}), name.lower()) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("OPENAI_BASE_URL", "http://localhost:8000/v1/", "http://localhost:8000/v1"),
        ("SORA_POLL_INTERVAL", "0.5", timedelta(microseconds=500)),
        ("SORA_SETTLE", "0", timedelta(0)),
        ("BATCH_TIMEOUT", "0", timedelta(0)),
        ("PROGRESS_INTERVAL", "0", timedelta(0)),
        ("SORA_REFERENCE_HOSTS", " a.example , b.example,", ("a.example", "b.example")),
        ("SORA_REFERENCE_DIRS", "/a", ("/a",)),
        ("SORA_MAX_REQUESTS_PER_SECOND", "0.2", 0.2),
        ("BATCH_MAX_SIZE", "10000", 10_000),
        ("SORA_SIZE", "1280x720", "1280x720"),
        ("LOG_LEVEL", "DEBUG", "debug"),
        ("LOG_FORMAT", "Json", "json"),
    ],
)
def test_a_setting_is_read_from_the_environment(given, name, text, value):
    assert getattr(given(**{name: text}), name.lower()) == value


def test_a_setting_is_read_from_a_file_and_the_environment_goes_first(given, tmp_path):
    (tmp_path / ".env").write_text("SORA_MODEL=from-file\nBATCH_CONCURRENCY=7\nSOMETHING_ELSE=x\n")
    settings = given(SORA_MODEL="from-environment")
    assert (settings.sora_model, settings.batch_concurrency) == ("from-environment", 7)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OPENAI_BASE_URL", "localhost:8000"),
        ("SORA_SIZE", "large"),
        ("SORA_SECONDS", "0"),
        ("SORA_SECONDS", "ten"),
        ("SORA_REQUEST_FORMAT", "xml"),
        ("SORA_POLL_INTERVAL", "0"),
        ("SORA_POLL_INTERVAL", "-1"),
        ("SORA_POLL_INTERVAL", "soon"),
        ("SORA_POLL_INTERVAL", "0s"),
        ("SORA_POLL_INTERVAL", "2 s"),
        ("SORA_POLL_INTERVAL", "1.5h"),
        ("SORA_SETTLE", "nan"),
        ("SORA_SETTLE", "inf"),
        ("SORA_VIDEO_TIMEOUT", "1e300"),
        ("SORA_MAX_IN_FLIGHT", "0"),
        ("SORA_MAX_REQUESTS_PER_SECOND", "0"),
        ("SORA_PAID_ATTEMPTS", "0"),
        ("SORA_UNKNOWN_SUBMISSION", "maybe"),
        ("SORA_DELETE_ON_CANCEL", "always"),
        ("BATCH_MAX_SIZE", "0"),
        ("BATCH_MAX_SIZE", "10001"),
        ("BATCH_CONCURRENCY", "0"),
        ("BATCH_CONCURRENCY", "1.5"),
        ("BATCH_TIMEOUT", "-5"),
        ("BATCH_LEASE", "4999"),
        ("BATCH_LEASE", "4s"),
        ("COMMAND_KEEP", "999999999999w"),
        ("COMMAND_MAX_BYTES", "1"),
        ("COMMAND_KEEP", "0"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_value_that_can_not_be_used_is_named_with_its_variable(given, name, text):
    with pytest.raises(SettingsError) as caught:
        given(**{name: text})
    assert str(caught.value).startswith(f"{name}={text!r}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("SORA_POLL_INTERVAL", "0", "must be more than 0"),
        ("SORA_SECONDS", "ten", "must be a whole number"),
        ("SORA_PAID_ATTEMPTS", "1.5", "must be a whole number"),
        ("SORA_MAX_REQUESTS_PER_SECOND", "fast", "must be a number"),
        ("SORA_SIZE", "large", "must be <width>x<height> in pixels, for example 1280x720"),
        ("BATCH_CONCURRENCY", "0", "must be 1 or more"),
        ("BATCH_MAX_SIZE", "10001", "must be 10000 or less"),
        ("LOG_FORMAT", "xml", "must be 'text' or 'json'"),
    ],
)
def test_what_is_expected_is_said_in_plain_words(given, name, text, expected):
    with pytest.raises(SettingsError) as caught:
        given(**{name: text})
    assert str(caught.value) == f"{name}={text!r}: {expected}"


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / ".env").write_bytes(b"SORA_MODEL=\xff\n")
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8"):
        load_settings()


DURATIONS = [name for name, default in DEFAULTS.items() if isinstance(default, timedelta)]


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("5M", timedelta(minutes=5)),
        ("9500ms", timedelta(milliseconds=9500)),
        ("9500", timedelta(milliseconds=9500)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_every_duration_takes_a_span_and_a_bare_number_is_milliseconds(given, name, text, length):
    assert getattr(given(**{name: text}), name.lower()) == length


@pytest.mark.parametrize("text", ["x", "nan", "1e300", "2 s", "1.5h", "s", "5y"])
def test_a_time_that_is_none_is_refused_with_what_is_one(given, text):
    with pytest.raises(
        SettingsError, match=r"must be a span of time \(500ms, 90s, 5m, 12h, 30d\) or a number of milli"
    ):
        given(SORA_SETTLE=text)


def test_the_password_of_the_database_is_not_shown(given):
    assert SECRET not in repr(given(DATABASE_URL=f"postgresql://user:{SECRET}@host/name"))


def test_the_password_of_a_server_is_neither_shown_nor_recorded(given):
    settings = given(OPENAI_BASE_URL=f"http://user:{SECRET}@host/v1")
    assert SECRET not in repr(settings)
    assert settings.provider.startswith("http://user:***@host/v1#")
    assert given(OPENAI_BASE_URL="http://user:other@host/v1").provider != settings.provider


@pytest.mark.parametrize("url", ["user:{}@host/v1", "ftp://user:{}@host"])
def test_a_server_that_is_none_is_refused_without_its_password(given, url):
    with pytest.raises(SettingsError, match=r"OPENAI_BASE_URL=\*\*\*: must start with http") as caught:
        given(OPENAI_BASE_URL=url.format(SECRET))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_secrets_are_masked_wherever_settings_are_shown(given):
    settings = given(OPENAI_API_KEY=SECRET, AMQP_URL=f"amqp://user:{SECRET}@host/")
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in shown
    assert settings.api_key == SECRET
    assert isinstance(settings.amqp_url, SecretStr)


def test_settings_do_not_change(given):
    with pytest.raises(ValidationError, match="frozen"):
        given().sora_model = "x"


def test_a_provider_is_a_server_and_a_key_without_telling_it(given):
    first = given(OPENAI_BASE_URL="http://h/v1", OPENAI_API_KEY=SECRET).provider
    assert first.startswith("http://h/v1#")
    assert SECRET not in first
    assert given(OPENAI_API_KEY="other").provider != first
    assert given(OPENAI_API_KEY="").provider not in ("http://h/v1", first)
    assert given(OPENAI_BASE_URL="http://h/v1/", OPENAI_API_KEY=SECRET).provider == first


def test_without_a_server_it_is_said_what_to_do(given):
    with pytest.raises(SettingsError) as caught:
        _ = given(OPENAI_API_KEY=SECRET).provider
    for words in ("OPENAI_BASE_URL is not set", "--simulate", "listed for removal on 2026-09-24"):
        assert words in str(caught.value)
