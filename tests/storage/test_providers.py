"""Where videos are made: what tells servers apart, and what does not."""

import pytest

from storage.urls import key_of, server_of


@pytest.mark.parametrize(
    ("provider", "server"),
    [
        ("http://Host:8000/v1/", "http://host:8000/v1"),
        ("HTTPS://host:443/v1#0123456789ab", "https://host/v1"),
        ("http://host:80", "http://host"),
        ("http://user:***@host/v1?api-version=preview", "http://host/v1"),
        ("https://[::1]:8443/v1", "https://[::1]:8443/v1"),
        ("https://host/V1", "https://host/V1"),
        ("simulator", "simulator"),
        ("http://host:port/v1", "http://host:port/v1"),
    ],
)
def test_a_server_is_its_address_normalised(provider, server):
    assert server_of(provider) == server
    assert server_of(server) == server


def test_the_key_is_what_follows_the_address():
    assert key_of("https://host/v1#0123456789ab") == "0123456789ab"
    assert key_of("simulator") == ""
