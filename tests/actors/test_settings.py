"""Every setting: its name, its default, what it takes, and what it says to what it does not take."""

import pwd
import re
import traceback
from datetime import timedelta

import pytest
from pydantic import SecretStr, ValidationError

from actors.cli.doctor import settings_table
from actors.errors import SettingsError
from actors.settings import Settings, load_settings
from actors.settings.values import readable_by_others
from actors.stores import _options

DEFAULTS = {
    "OPENAI_BASE_URL": None,
    "SORA_AUTH": "bearer",
    "OPENAI_API_KEY": None,
    "SORA_HEADERS": None,
    "SORA_MODEL": None,
    "SORA_SIZE": None,
    "SORA_SECONDS": None,
    "SORA_PRICES": None,
    "SORA_CHARGES_FAILED": "yes",
    "BATCH_BUDGET": None,
    "SORA_BUDGET": None,
    "SORA_BUDGET_WAIT": "no",
    "SORA_REQUEST_FORMAT": "multipart",
    "SORA_POLL_INTERVAL": timedelta(milliseconds=2000),
    "SORA_MAX_IN_FLIGHT": None,
    "SORA_MAX_REQUESTS_PER_SECOND": None,
    "SORA_SUBMIT_TIMEOUT": timedelta(milliseconds=60_000),
    "SORA_CONNECT_TIMEOUT": timedelta(milliseconds=10000),
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
    "DATABASE_URL_FILE": None,
    "AMQP_URL": None,
    "AMQP_URL_FILE": None,
    "WEB_TOKEN_FILE": None,
    "WEB_READ_ONLY": False,
    "OPENAI_API_KEY_FILE": None,
    "SORA_HEADERS_FILE": None,
    "AMQP_QUEUE_TYPE": "quorum",
    "COMMAND_MAX_BYTES": 1_048_576,
    "COMMAND_KEEP": timedelta(days=7),
    "VIDEO_DIR": "videos",
    "VIDEO_STORE": None,
    "VIDEO_KEEP": None,
    "HISTORY_KEEP": None,
    "HTTP_PROXY": None,
    "HTTPS_PROXY": None,
    "NO_PROXY": None,
    "SSL_CERT_FILE": None,
    "SSL_CERT_DIR": None,
    "REQUESTS_CA_BUNDLE": None,
    "WEB_LISTEN": None,
    "WEB_TOKEN": None,
    "WEB_PUBLIC_URL": None,
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
        ("OPENAI_BASE_URL", "http://h/v1/?api-version=preview", "http://h/v1?api-version=preview"),
        ("OPENAI_BASE_URL", "http://h/v1?", "http://h/v1"),
        ("SORA_AUTH", "None", "none"),
        ("SORA_AUTH", "Header: api-key", "header:api-key"),
        ("SORA_POLL_INTERVAL", "0.5", timedelta(microseconds=500)),
        ("SORA_SETTLE", "0", timedelta(0)),
        ("BATCH_TIMEOUT", "0", timedelta(0)),
        ("PROGRESS_INTERVAL", "0", timedelta(0)),
        ("SORA_REFERENCE_HOSTS", " a.example , b.example,", ("a.example", "b.example")),
        ("SORA_REFERENCE_DIRS", "/a", ("/a",)),
        ("SORA_MAX_REQUESTS_PER_SECOND", "0.2", 0.2),
        ("BATCH_MAX_SIZE", "10000", 10_000),
        ("SORA_SIZE", "1280x720", "1280x720"),
        ("WEB_LISTEN", "8080", "8080"),
        ("WEB_LISTEN", "[::1]:8080", "[::1]:8080"),
        ("VIDEO_STORE", "s3://films/of/sora/", "s3://films/of/sora"),
        ("VIDEO_STORE", "file:///srv/films/", "file:///srv/films"),
        ("WEB_PUBLIC_URL", "https://videos.example.com/sora/", "https://videos.example.com/sora"),
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
        ("WEB_LISTEN", "web"),
        ("VIDEO_STORE", "ftp://films/x"),
        ("VIDEO_STORE", "s3://films/a b"),
        ("VIDEO_STORE", "file://films"),
        ("WEB_PUBLIC_URL", "videos.example.com"),
        ("WEB_PUBLIC_URL", "ftp://videos.example.com"),
        ("WEB_PUBLIC_URL", "https://videos.example.com:99999"),
        ("WEB_LISTEN", ":8080"),
        ("WEB_LISTEN", "::1:8080"),
        ("WEB_LISTEN", "127.0.0.1:"),
        ("WEB_LISTEN", "127.0.0.1:99999"),
        ("WEB_LISTEN", "http://127.0.0.1:8080"),
        ("SORA_SECONDS", "0"),
        ("SORA_SECONDS", "ten"),
        ("SORA_REQUEST_FORMAT", "xml"),
        ("SORA_AUTH", "basic"),
        ("SORA_AUTH", "header:"),
        ("SORA_AUTH", "header:a b"),
        ("SORA_AUTH", "header:Content-Type"),
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
        ("VIDEO_KEEP", "59m"),
        ("VIDEO_KEEP", "never"),
        ("HISTORY_KEEP", "3599999"),
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
    "text", [f"api-key: {SECRET}{SECRET}", f"header:api-key={SECRET}{SECRET}", "0123456789ABCDEF" * 2]
)
def test_a_key_that_was_set_as_the_way_to_send_it_is_not_shown(given, text):
    with pytest.raises(SettingsError, match=r"^SORA_AUTH=\*\*\*: must be bearer, none, or header:NAME"):
        given(SORA_AUTH=text)


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
    with pytest.raises(SettingsError, match=r"\.env is not valid UTF-8"):
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
    with pytest.raises(SettingsError, match=r"must be a duration \(500ms, 90s, 5m, 12h, 30d\) or a number of milli"):
        given(SORA_SETTLE=text)


def test_hosts_are_compared_as_urls_name_them(given):
    hosts = given(SORA_REFERENCE_HOSTS="Images.Example:443, cdn.example:8443,[::1]").sora_reference_hosts
    assert hosts == ("images.example", "cdn.example:8443", "[::1]")


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example",
        "a.example/films",
        "*.example",
        "a.example:x",
        "a.example:0",
        "a.example b.example",
        "[::1",
        ":80",
    ],
)
def test_a_host_that_no_url_could_name_is_refused(given, text):
    with pytest.raises(SettingsError, match=re.escape(f"SORA_REFERENCE_HOSTS={text!r}: must be hosts such as ")):
        given(SORA_REFERENCE_HOSTS=text)


def test_a_host_with_a_password_is_refused_without_it(given):
    with pytest.raises(SettingsError, match=r"SORA_REFERENCE_HOSTS=\*\*\*: must be hosts such as "):
        given(SORA_REFERENCE_HOSTS="user:Heron9342@a.example")


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VIDEO_STORE", "s3://AKID:{0}@films/prefix"), ("VIDEO_STORE", "https://films.example/b?token={0}"),
        ("VIDEO_STORE", "{0}"), ("WEB_PUBLIC_URL", "https://{0}@films.example"),
        ("WEB_PUBLIC_URL", "https://me:{0}@films.example"), ("WEB_PUBLIC_URL", "https://films.example/?key={0}"),
    ],
)  # fmt: skip
def test_an_address_that_can_not_be_used_is_refused_without_its_secrets(given, name, value):
    with pytest.raises(SettingsError, match=rf"{name}=\*\*\*: must be ") as caught:
        given(**{name: value.format("Heron9342")})
    assert "Heron9342" not in str(caught.value)
    shown = {each.name: each.value for each in settings_table(None)}
    assert "Heron9342" not in str(shown[name])


def test_a_folder_as_the_store_is_shown_as_it_is(given):
    store = "file:///srv/films@home#1"
    shown = {each.name: each.value for each in settings_table(given(VIDEO_STORE=store))}
    assert shown["VIDEO_STORE"] == store


def test_what_is_neither_true_nor_false_is_told(given):
    with pytest.raises(SettingsError, match=r"WEB_READ_ONLY='x': must be true or false$"):
        given(WEB_READ_ONLY="x")


def test_secrets_are_masked_wherever_settings_are_shown(given):
    settings = given(OPENAI_API_KEY=SECRET, AMQP_URL=f"amqp://user:{SECRET}@host/")
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in shown
    assert settings.api_key == SECRET
    assert isinstance(settings.amqp_url, SecretStr)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OPENAI_BASE_URL", "http://host/v1"), ("OPENAI_API_KEY", "the-key"), ("SORA_MODEL", "sora-2"),
        ("SORA_SECONDS", "8"), ("SORA_SETTLE", "9s"), ("SORA_REQUEST_FORMAT", "json"), ("SORA_LISTING", "whole"),
        ("DATABASE_URL", "sqlite:///x.db"), ("AMQP_URL", "amqp://host/"), ("VIDEO_DIR", "films"), ("LOG_LEVEL", "debug"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("around", [" {}", "{} ", "{}\n", "\t{}\r\n", "\u00a0{}\u2028"])
def test_white_space_around_a_value_is_removed(given, name, text, around):
    field = name.lower()
    assert getattr(given(**{name: around.format(text)}), field) == getattr(given(**{name: text}), field)


def test_a_value_of_white_space_is_an_unset_one(given):
    settings = given(OPENAI_BASE_URL=" ", BATCH_CONCURRENCY="\n", DATABASE_URL="\t")
    assert (settings.openai_base_url, settings.batch_concurrency) == (None, 3)
    assert settings.database_url == DEFAULTS["DATABASE_URL"]


def test_a_file_with_a_mark_of_its_encoding_is_read(tmp_path):
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfSORA_MODEL=m\nVIDEO_DIR='films '\n")
    assert (load_settings().sora_model, load_settings().video_dir) == ("m", "films")


def test_the_home_folder_is_found_where_no_shell_has_done_it(given, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me 50%")
    (tmp_path / ".env").write_text("VIDEO_DIR=~/films\n")
    settings = given(DATABASE_URL="sqlite:///~/b%20c.db", SORA_REFERENCE_DIRS="~/a, /b,~")
    assert settings.video_dir == "/home/me 50%/films"
    assert settings.database_url == "sqlite:////home/me%2050%25/b%20c.db"
    assert settings.sora_reference_dirs == ("/home/me 50%/a", "/b", "/home/me 50%")
    root = pwd.getpwuid(0)
    assert given(VIDEO_DIR=f"~{root.pw_name}/x").video_dir == f"{root.pw_dir}/x"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "VIDEO_DIR",
            "~nobody-of-this-name/x",
            "~nobody-of-this-name has no home folder: use the full path",
        ),
        ("VIDEO_DIR", "$HOME/x", "$ is not expanded here: use ~"),
        ("DATABASE_URL", "sqlite:///$HOME/x.db", "$ is not expanded here: use ~"),
        ("DATABASE_URL", "sqlite:///~nobody-of-this-name/x.db", "~nobody-of-this-name has no home folder"),
        ("SORA_REFERENCE_DIRS", "/a,~nobody-of-this-name", "~nobody-of-this-name has no home folder"),
        (
            "DATABASE_URL",
            "sqlite:///:memory:",
            "is a database that is lost when the process ends: name a file, such as sqlite",
        ),
        ("DATABASE_URL", "sqlite://", "is a database that is lost when the process ends"),
        ("OPENAI_BASE_URL", "http://host /v1", "must not contain white space"),
        ("OPENAI_BASE_URL", "http://host/v1\x07", "contains a line break or another control character"),
        ("OPENAI_BASE_URL", "http://", "must be a URL such as http://localhost:8000/v1"),
        ("OPENAI_BASE_URL", "http://[", "must be a URL such as http://localhost:8000/v1"),
    ],
)
def test_what_would_lead_elsewhere_is_refused(given, name, text, expected):
    with pytest.raises(SettingsError) as caught:
        given(**{name: text})
    assert str(caught.value).startswith(f"{name}={text!r}: {expected}")


@pytest.mark.parametrize("url", ["http://host/v1#x", "http://me:p#w@host/v1"])
def test_a_server_has_no_fragment(given, url):
    with pytest.raises(SettingsError, match=r"OPENAI_BASE_URL=\*\*\*: must not contain # .* # as %23"):
        given(OPENAI_BASE_URL=url)


@pytest.mark.parametrize("url", ["http://me:p/w@host/v1", "http://me:1/w@host/v1", "http://to?ken@host/v1"])
def test_a_password_that_would_lead_to_another_host_is_refused(given, url):
    with pytest.raises(
        SettingsError, match=r"OPENAI_BASE_URL=\*\*\*: must be a URL .* write @ as %40, # as %23, / as %2F"
    ):
        given(OPENAI_BASE_URL=url)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "AMQP_URL"])
@pytest.mark.parametrize("between", ["\n", "\x1b", "\udcff"])
def test_a_line_break_in_a_secret_is_refused_without_showing_it(given, name, between):
    with pytest.raises(SettingsError, match=rf"{name}=\*\*\*: contains a line break or another control character"):
        given(**{name: f"amqp://{SECRET}{between}{SECRET}"})


def test_a_token_for_a_user_tells_keys_apart(given):
    settings = given(OPENAI_BASE_URL="http://one@host/v1")
    assert settings.provider.startswith("http://***@host/v1#")
    assert given(OPENAI_BASE_URL="http://other@host/v1").provider != settings.provider


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


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ('{"X-Team": "films"}', {"X-Team": "films"}),
        ("X-Team: films\r\n\n  x-url : http://h:1/\n", {"X-Team": "films", "x-url": "http://h:1/"}),
        ("{}", {}),
        ('{"X-Empty": ""}', {"X-Empty": ""}),
    ],
)
def test_headers_are_an_object_or_lines(given, text, headers):
    assert given(SORA_HEADERS=text).headers == headers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"X-Team": "a\\nEvil: b"}', "the value of X-Team contains a line break"),
        ('{"X-Team": "a\\u0000"}', "the value of X-Team contains a line break or another control character"),
        ('{"X-Team\\n": "a"}', r"has 'X-Team\n' in place of a header name"),
        ('{"X Team": "a"}', "has 'X Team' in place of a header name"),
        ('{"X-Team": 1}', "the value of X-Team must be a quoted string"),
        ('{"X-Team": {"a": "b"}}', "the value of X-Team must be a quoted string"),
        ('{"X-Team": "a"', "must be a JSON object such as"),
        ("X-Team films", "line 1 has no colon"),
        ("X-Team: a\nmore", "line 2 has no colon"),
        ("X-Team: a\nx-team: b", "x-team is set twice"),
        ('{"X-Team": "a", "X-Team": "b"}', "X-Team is set twice"),
        ("Idempotency-Key: 1", "Idempotency-Key can't be set"),
        ("content-length: 1", "content-length can't be set"),
        ("x-litellm-num-retries: 3", "x-litellm-num-retries can't be set"),
    ],
)
def test_headers_that_can_not_be_sent_are_refused_and_not_shown(given, text, expected):
    with pytest.raises(SettingsError) as caught:
        given(SORA_HEADERS=f"{text}")
    assert str(caught.value).startswith(f"SORA_HEADERS=***: {expected}")


@pytest.mark.parametrize("variables", [
    {"OPENAI_API_KEY": "k", "SORA_HEADERS": "authorization: x"},
    {"OPENAI_API_KEY": "k", "SORA_AUTH": "header:api-key", "SORA_HEADERS": "API-Key: x"},
    {"OPENAI_BASE_URL": "http://me:pw@h/v1", "SORA_HEADERS": "Authorization: x"},
])  # fmt: skip
def test_no_header_is_sent_twice(given, variables):
    with pytest.raises(
        SettingsError, match=r"SORA_HEADERS=\*\*\*: sets (authorization|API-Key|Authorization), which carries"
    ):
        given(**variables)


def test_a_user_in_the_url_goes_with_a_key_in_a_header_of_its_own(given):
    url = {"OPENAI_BASE_URL": "http://me:pw@h/v1", "OPENAI_API_KEY": SECRET}
    for auth in ("header:api-key", "none"):
        assert given(SORA_AUTH=auth, **url).api_key == SECRET
    for auth in ("bearer", "header:AUTHORIZATION"):
        with pytest.raises(
            SettingsError, match=r"OPENAI_API_KEY=\*\*\*: can't be sent together with the user in OPENAI_BASE_URL"
        ):
            given(SORA_AUTH=auth, **url)


def test_headers_are_shown_nowhere(given):
    settings = given(SORA_HEADERS=f"X-Gate: Bearer {SECRET}\nCookie: session=Heron9342")
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in shown
        assert "Heron" not in shown
    assert settings.secrets.mask(f"the token {SECRET} of session Heron9342") == "the token *** of session ***"


def test_a_key_in_a_header_or_a_query_tells_keys_apart(given):
    def provider(**variables):
        return given(
            **{"OPENAI_BASE_URL": "http://h/v1", "OPENAI_API_KEY": "", "SORA_HEADERS": "", **variables}
        ).provider

    alone = provider(OPENAI_API_KEY="k")
    assert alone == "http://h/v1#8254c329a928"  # as versions before have recorded it
    assert provider(OPENAI_API_KEY="k", SORA_HEADERS="custom-llm-provider: x\nX-Gate-Key: g") == alone
    assert provider(OPENAI_API_KEY="k", OPENAI_BASE_URL="http://h/v1?api-version=1").endswith(alone.partition("#")[2])
    keys = {
        provider(),
        alone,
        provider(OPENAI_API_KEY="k", SORA_HEADERS="OpenAI-Organization: a"),
        provider(OPENAI_API_KEY="k", SORA_HEADERS="OpenAI-Organization: b"),
        provider(SORA_HEADERS="Authorization: Key a"),
        provider(SORA_HEADERS="Authorization: Key b"),
        provider(OPENAI_BASE_URL="http://h/v1?code=a").replace("?code=***", ""),
        provider(OPENAI_BASE_URL="http://h/v1?code=b").replace("?code=***", ""),
    }
    assert len(keys) == 8


def test_proxies_are_read_from_a_file_and_by_either_case(given, tmp_path):
    (tmp_path / ".env").write_text(
        "HTTPS_PROXY=proxy.example:3128\nhttp_proxy=http://other:1\nNO_PROXY=.example.org,10.0.0.0/8\n"
    )
    settings = given(https_proxy="http://mine:1")
    assert settings.proxy_for("https://videos.example/v1") == "http://mine:1"
    assert settings.proxy_for("http://videos.example/v1") == "http://other:1"
    assert load_settings(https_proxy=None).proxy_for("https://videos.example") is None


@pytest.mark.parametrize(
    ("url", "no_proxy", "bypassed"),
    [
        ("http://videos.example.org", "example.org", True),
        ("http://videos.example.org", ".example.org", True),
        ("http://videos.example.org", "*.example.org", True),
        ("http://videos.example.org", "EXAMPLE.org:80", True),
        ("http://videos.example.org:81", "example.org:80", False),
        ("http://notexample.org", "example.org", False),
        ("http://videos.example.org", "videos", False),
        ("http://videos.example.org", " , ", False),
        ("http://videos.example.org", "a,*", True),
        ("http://10.1.2.3:8000", "10.0.0.0/8", True),
        ("http://11.1.2.3:8000", "10.0.0.0/8", False),
        ("http://[::1]:8000", "[::1]", True),
        ("http://[::1]:8000", "::1", True),
        ("http://[::1]:8000", "127.0.0.1", False),
    ],
)
def test_no_proxy_names_hosts_domains_and_networks(given, url, no_proxy, bypassed):
    settings = given(HTTP_PROXY="http://proxy:1", NO_PROXY=no_proxy)
    assert settings.proxy_for(url) == (None if bypassed else "http://proxy:1")


def test_the_password_of_a_proxy_is_not_shown(given):
    settings = given(HTTPS_PROXY=f"http://me:{SECRET}@proxy:1", HTTP_PROXY=f"me:{SECRET}@proxy:1")
    for shown in (repr(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in shown
    assert settings.secrets.mask(f"to {SECRET}") == "to ***"


def test_a_proxy_that_can_not_be_used_disturbs_nobody_who_needs_none(given):
    settings = given(HTTPS_PROXY=f"socks5://me:{SECRET}@proxy:1")
    with pytest.raises(
        SettingsError, match=r"HTTPS_PROXY=socks5://me:\*\*\*@proxy:1: must be the URL of an HTTP proxy"
    ):
        settings.proxy_for("https://videos.example/v1")
    assert settings.proxy_for("http://videos.example/v1") is None
    assert given(NO_PROXY="*", HTTPS_PROXY="socks5://proxy:1").proxy_for("https://videos.example/v1") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_API_KEY", SECRET), ("DATABASE_URL", "sqlite:///other.db"), ("AMQP_URL", "amqp://a:b@c/"),
        ("SORA_HEADERS", "X-Team: blue\nX-Other: red"),
    ],
)  # fmt: skip
def test_a_secret_may_stand_in_a_file(monkeypatch, tmp_path, name, value):
    file = tmp_path / "secret"
    file.write_text(f"\ufeff{value}\n", "utf-8")
    file.chmod(0o600)
    monkeypatch.setenv(f"{name}_FILE", str(file))
    settings = load_settings()
    found = getattr(settings, name.lower())
    assert (found if isinstance(found, str) else found.get_secret_value()) == value
    assert list(readable_by_others(settings)) == []
    assert {each.source for each in settings_table(settings) if each.name == name} == {f"{name}_FILE"}
    assert SECRET not in str(settings_table(settings))
    file.chmod(0o644)
    (warning,) = readable_by_others(settings)
    assert f"{name}_FILE" in warning
    assert "chmod o-r" in warning
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="both set: unset one"):
        load_settings()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        ("folder", "that is a folder: name a file in it"),
    ],
)
def test_a_file_that_has_no_secret_is_named_with_the_way_out(monkeypatch, tmp_path, content, said):
    file = tmp_path / "secret"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(file))
    with pytest.raises(SettingsError, match=said) as refused:
        load_settings()
    assert str(refused.value).startswith(f"OPENAI_API_KEY_FILE={str(file)!r}: ")


@pytest.mark.parametrize("value", [SECRET, "X-Gate: Heron9342/x.y", "x" * 5000, "a.b.c"])
def test_a_secret_in_place_of_the_name_of_its_file_is_not_shown(given, value):
    with pytest.raises(SettingsError, match=r"^WEB_TOKEN_FILE=\*\*\*: ") as refused:
        given(WEB_TOKEN_FILE=value)
    assert value not in str(refused.value)
    assert {each.value for each in settings_table(None) if each.name == "WEB_TOKEN_FILE"} == {"***"}
    with pytest.raises(SettingsError, match=r"^WEB_TOKEN_FILE='\./token': there is no such file"):
        given(WEB_TOKEN_FILE="./token")


def test_credentials_of_a_bucket_are_read_from_env_too_and_not_shown(given, monkeypatch, tmp_path):
    (tmp_path / ".env").write_text(
        "AWS_SECRET_ACCESS_KEY=of-the-file-1\nAWS_REGION=eu-west-1\nAZURE_STORAGE_ACCOUNT_KEY=account-key-1\n"
    )
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    settings = given(VIDEO_STORE="s3://films", AWS_SESSION_TOKEN="session-token-1", AWS_ACCESS_KEY_ID="AKIDSHOWN")
    options = settings.bucket_options
    assert (options["AWS_SECRET_ACCESS_KEY"], options["AWS_REGION"]) == ("of-the-file-1", "eu-central-1")
    text = " ".join(options.values())
    masked = settings.secrets.mask(text)
    assert "AKIDSHOWN" in masked
    assert not any(secret in masked for secret in ("of-the-file-1", "session-token-1", "account-key-1"))
    assert load_settings(video_store=None).bucket_secrets == []


def test_each_provider_s_buckets_are_reached_over_the_proxy_for_their_own_server(given):
    settings = given(
        VIDEO_STORE="gs://films", AWS_ENDPOINT_URL="http://minio.test:9000", HTTPS_PROXY="http://proxy:1",
        GOOGLE_SERVICE_ACCOUNT_KEY="{}",
    )  # fmt: skip
    assert _options(settings, "gs").proxy == {"proxy_url": "http://proxy:1"}
    assert _options(settings, "s3").proxy == {}  # older files
    with pytest.raises(SettingsError, match=r"^AWS_ENDPOINT_URL='minio:9000': must be"):
        _options(given(AWS_ENDPOINT_URL="minio:9000"), "s3")


def test_what_follows_from_changed_settings_is_worked_out_anew() -> None:
    first = Settings(openai_base_url="http://one.test/v1", openai_api_key="one")
    assert first.provider.startswith("http://one.test/v1#")
    second = first.model_copy(update={"openai_base_url": "http://two.test/v1"})
    assert second.provider == f"http://two.test/v1#{first.key_fingerprint}"
    assert second.model_copy(update={"openai_api_key": None}).key_fingerprint != first.key_fingerprint
    assert first.provider.startswith("http://one.test/v1#")
