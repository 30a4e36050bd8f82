"""The trace that a command belongs to: what is W3C Trace Context, and what is not."""

import pytest

from storage.traces import read_trace

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WHOLE = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize("text", [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-01-what"])
def test_a_traceparent_is_taken_as_it_is(text):
    assert read_trace(text, None) == {"traceparent": text}


@pytest.mark.parametrize(
    "text",
    [
        "", "00-abc", f"00-{TRACE}-{PARENT}-01-more", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01\n", 7,
        f"00-{TRACE}-{PARENT}", f"cc-{TRACE}-{PARENT}-01-{'x' * 300}", f"cc-{TRACE}-{PARENT}-01-\r\nX-Injected: 1",
    ],
)  # fmt: skip
def test_what_is_no_traceparent_is_ignored(text):
    assert read_trace(text, "rojo=1") is None


@pytest.mark.parametrize("text", ["rojo=00f067aa0ba902b7", "rojo=1,congo=t61rcWkgMzE", "tenant@vendor=a b , x=1"])
def test_a_tracestate_is_taken_as_it_is(text):
    assert read_trace(WHOLE, text) == {"traceparent": WHOLE, "tracestate": text}


@pytest.mark.parametrize(
    "text", ["", ",", "rojo", "Rojo=1", "rojo=", "rojo=1,rojo=2", "a=b=c", "a=1\n", "a=é", f"a={'x' * 600}",
             ",".join(f"k{number}=1" for number in range(33))],
)  # fmt: skip
def test_what_is_no_tracestate_is_ignored(text):
    assert read_trace(WHOLE, text) == {"traceparent": WHOLE}
