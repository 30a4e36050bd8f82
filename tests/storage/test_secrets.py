"""What is secret in a URL, and that it is masked in whatever spelling; and that nothing else is."""

import base64
import json
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.secrets import Secrets
from storage.urls import basic_auth, key_in, masked_url, place_of, without_user

HOSTILE = "'\"\\\n\r\t\x00 @#/?%:&=+;,[]{}<>|$é€ß名😀\u2028"
secrets = st.text(HOSTILE, max_size=8).map(lambda middle: f"Kestrel5{middle}Heron9")
SPELLINGS = {
    "plain": str,
    "repr": repr,
    "repr of both quotes": lambda text: repr(f"{text}'\""),
    "ascii": ascii,
    "bytes": lambda text: repr(text.encode()),
    "JSON": json.dumps,
    "JSON in Unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "repr of JSON": lambda text: repr(json.dumps(text)),
    "repr of repr": lambda text: repr(repr(text)),
    "encoded": lambda text: quote(text, safe=""),
    "encoded but for some": lambda text: quote(text, safe="/:@&=+$,"),
    "encoded in lower case": lambda text: quote(text, safe="").lower(),
    "encoded as a form": quote_plus,
    "in lower case, as a host": str.lower,
}


def tells(text: str) -> bool:
    """Whether any part of such a secret stands in a text."""
    return any(part in text.lower() for part in ("kestrel5", "heron9"))


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(secret=secrets)
def test_a_secret_is_masked_however_it_is_spelled(spelling: str, secret: str) -> None:
    masked = Secrets([secret]).mask(f"<{SPELLINGS[spelling](secret)}>")
    assert not tells(masked)
    assert "***" in masked


@given(secret=secrets, scheme=st.sampled_from(["http", "postgresql", "amqp", "mysql"]), written=st.booleans())
def test_a_password_is_masked_in_a_url_however_badly_it_is_written(scheme: str, secret: str, written: bool) -> None:
    password = secret if written else quote(secret, safe="")
    urls = [f"{scheme}://user:{password}@host:1/path", f"user:{password}@host"]
    # Where the host was forgotten, what stands behind one of these could be the host, or the path.
    for url in [*urls, *([] if set(password) & set("@/?#") else [f"{scheme}://user:{password}"])]:
        masked = Secrets(urls=[url]).mask
        assert not tells(masked_url(url))
        assert not tells(masked(repr(url)))
        assert not tells(masked(json.dumps(url)))
        assert not tells(masked(f"<{secret}> {password!r} {quote(secret)}"))


@given(secret=secrets)
def test_each_part_of_a_password_that_a_library_may_quote_is_masked(secret: str) -> None:
    url = f"postgresql://user:{secret}@host:1/path"
    masked = Secrets(urls=[url]).mask
    for separator in "@#/?:[]":
        for part in url.removeprefix("postgresql://").split(separator):
            assert not tells(masked(f"could not use {part!r}"))


@given(secret=secrets)
def test_a_value_in_a_query_is_masked(secret: str) -> None:
    for url in (
        f"http://host/v1?code={quote(secret, safe='')}",
        f"postgresql://host/db?user=u&password={quote(secret)}",
    ):
        assert not tells(masked_url(url))
        assert not tells(Secrets(urls=[url]).mask(f"{url} {secret!r}"))


def test_basic_authentication_is_masked_in_base64() -> None:
    url = "http://me:Kestrel%405@host/v1"
    said = base64.b64encode(b"me:Kestrel@5").decode()
    assert basic_auth(url) == said
    assert Secrets(urls=[url]).mask(f"Authorization: Basic {said}") == "Authorization: Basic ***"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("amqp://u:pw@h:5672/", "amqp://u:***@h:5672/"), ("http://h:80/v1", "http://h:80/v1"),
        ("sqlite:///a@b.db", "sqlite:///a@b.db"), ("http://[", "http://["), ("amqp://u@h/v@2", "amqp://***@2"),
        ("u:pw@h/d", "***@h/d"), ("postgres//u:pw@h/d", "***@h/d"), ("amqp://u:p@w@h/", "amqp://u:***@h/"),
        ("postgresql://u:long@[h", "postgresql://u:***@[h"), ("http://[::1]:80/v1", "http://[::1]:80/v1"),
        ("postgresql://u:S3cr3t#Pw@h:9/db", "postgresql://u:***@h:9/db"),
        ("postgresql://u:S3cr3t?Pw@h:9/db", "postgresql://u:***@h:9/db"),
        ("postgresql://u:S3cr3t/Pw@h:9/db", "postgresql://u:***@h:9/db"),
        ("postgresql://u:S3cr3t", "postgresql://u:***"), ("postgresql://u:S3cr3t/db", "postgresql://u:***/db"),
        ("postgresql:///db?host=h&password=p", "postgresql:///db?host=h&password=***"),
        ("postgresql://h/db?user=me@corp&password=p@q", "postgresql://h/db?user=me@corp&password=***"),
        ("postgresql://h/db?sslmode=require&sslpassword=p", "postgresql://h/db?sslmode=require&sslpassword=***"),
        ("http://h/v1?api-version=preview&code=p", "http://h/v1?api-version=preview&code=***"),
        ("http://h/v1?p", "http://h/v1?***"), ("http://h/v1#p", "http://h/v1#***"),
        ("amqp://u:p@h/?heartbeat=5&x=y", "amqp://u:***@h/?heartbeat=5&x=***"),
        ("http://token@h/v1", "http://***@h/v1"), ("http://token:@h/v1", "http://***@h/v1"),
        ("http://token:x@h/v1", "http://***@h/v1"), ("host=h user=u password='p w'", "***"), ("a-key", "***"),
        ("localhost:8000", "localhost:8000"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_what_is_secret_in_it(url: str, masked: str) -> None:
    assert masked_url(url) == masked


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://me:p@h/db", "postgres, postgresql://h/db, p"),
        ("postgresql://me:post@h/db", "postgres, postgresql://h/db"),
        ("postgresql://postgres@h/db", 'role "postgres" does not exist'),
        ("postgresql://postgres:postgres@h/db", 'login of user "postgres"'),
        ("amqp://guest:guest@h/", "RabbitMQ refused the login of user guest"),
        ("postgresql://me:data@h/db", "the database and its metadata"),
        ("http://h/v1?api-version=preview", "preview"),
        ("sqlite:///videos.db", "sqlite:///videos.db"),
        ("sqlite:///videos.db", "amqp://guest:guest@localhost:5672/ or postgresql://USER:PASSWORD@HOST/NAME"),
    ],
)
def test_only_whole_secrets_are_masked(url: str, text: str) -> None:
    assert Secrets(urls=[url]).mask(text) == text


def test_a_short_secret_is_masked_where_it_stands_in_its_url() -> None:
    masked = Secrets(["k"], ["postgresql://me:p@h/db"]).mask
    assert masked("can't open postgresql://me:p@h/db: p") == "can't open postgresql://me:***@h/db: p"
    assert masked("Authorization: Bearer k") == "Authorization: Bearer ***"


def test_what_looks_like_a_secret_is_masked_whosever_it_is() -> None:
    text = "Bearer abc.def http://u:p%40w@h/db, sk-abcdefghijk, user=u password=secret sslpassword='a b' http://h:80/v1"
    assert Secrets().mask(text) == (
        "Bearer *** http://u:***@h/db, ***, user=u password=*** sslpassword=*** http://h:80/v1"
    )


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:S3cr3t#Pw@h:9/db?x=y", "postgresql://h:9/db"), ("mysql://u:p@h/n", "mysql://h/n"),
        ("postgresql:///db?host=h&password=p", "postgresql:///db?host=h&password=***"), ("u:pw@h/d", "***@h/d"),
    ],
)  # fmt: skip
def test_a_place_has_no_user(url: str, place: str) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize(
    ("url", "rest", "key"),
    [
        ("http://h/v1?a=b", "http://h/v1?a=b", ""), ("http://u:p@h/v1", "http://h/v1", "p"),
        ("http://h/v1?e=a@b", "http://h/v1?e=a@b", ""), ("http://token@h/v1?a=b", "http://h/v1?a=b", "token"),
    ],
)  # fmt: skip
def test_a_url_is_asked_without_its_user(url: str, rest: str, key: str) -> None:
    assert (without_user(url), key_in(url)) == (rest, key)


def test_a_password_that_is_encoded_is_masked_as_it_is_meant_too() -> None:
    assert Secrets(urls=["amqp://u:a%40bcd@h/"]).mask(unquote("a%40bcd a%2540bcd")) == "*** ***"
