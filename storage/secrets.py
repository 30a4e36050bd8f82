"""Masks secrets in texts, in any spelling. The only place that does; `storage/urls.py` knows those in URLs.

A secret of four characters or more is masked wherever it is a whole word, and one that can't be part of another word
anywhere; a shorter one only in its URL.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterable

from storage.urls import HIDDEN, SHORTEST, masked_url, secrets_in

_ANYWHERE = 8

# Anything that looks like a secret is masked: a bearer token, a key, a password in a URL or for libpq.
_GENERIC = re.compile(
    r"(?P<before>\bBearer\s+|\b(?:ssl)?password=)(?:'[^']*'|[^\s\"'&]+)"
    # Not in the examples of our own messages, amqp://guest:guest@... and postgresql://USER:PASSWORD@...
    r"|(?P<user>://(?P<name>[^\s/:@]*):)(?!(?P=name)@|PASSWORD@)[^\s/\"'@]+(?=@)|\bsk-[\w-]{8,}",
    re.IGNORECASE,
)


class Secrets:
    """The secrets of one set of settings.

    Args:
        words: secrets as they are, such as a key.
        urls: URLs with secrets in them.
    """

    def __init__(self, words: Iterable[str] = (), urls: Iterable[str] = ()) -> None:
        hidden, shown = set(words), {url: masked_url(url) for url in urls}
        for url in shown:
            hidden.update(secrets_in(url))
        found = {word: HIDDEN for word in hidden if len(word) >= SHORTEST and any(map(str.isalnum, word))}
        found |= {url: masked for url, masked in shown.items() if masked != url and len(url) >= SHORTEST}
        # Longest first: another may be part of it.
        self._found = [_Spelling(word, found[word]) for word in sorted(found, key=len, reverse=True)]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._found)

    def mask(self, text: str) -> str:
        """Replace each secret in a text, and anything that looks like one, by `***`."""
        lower = text.lower()
        for spelling in self._found:
            if spelling.anchor in lower:
                text = spelling.pattern.sub(spelling.instead, text)
        return _GENERIC.sub(lambda match: f"{match['before'] or match['user'] or ''}{HIDDEN}", text)


class _Spelling:
    """One secret, and a pattern that finds it in any spelling."""

    def __init__(self, word: str, instead: str) -> None:
        self._word = word
        self.instead = instead.replace("\\", r"\\")
        self.anchor = max(re.findall("[a-z0-9]+", word.lower()), key=len, default="")
        """A part of all spellings: without it in a text, the pattern need not be tried or compiled."""

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        body = "".join(map(_spelled, self._word))
        if len(self._word) < _ANYWHERE or self._word.isalpha():
            body = (_BEGIN if self._word[0].isalnum() else "") + body + (_END if self._word[-1].isalnum() else "")
        return re.compile(body, re.IGNORECASE)


_BEGIN = r"(?:(?<![^\W_])|(?<=\\[abfnrtv0])|(?<=\\x[0-9a-f]{2})|(?<=\\u[0-9a-f]{4})|(?<=%[0-9a-f]{2}))"
"""Of a word. An escape before it, such as `\\n`, is not part of it."""
_END = r"(?![^\W_])"
_ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\a": "a", "\v": "v", "\0": "0"}


@functools.lru_cache(maxsize=512)
def _spelled(character: str) -> str:
    """A pattern of all spellings of a character: plain, escaped (repr, JSON, also twice), encoded."""
    if character.isascii() and character.isalnum():
        return character
    utf8, utf16 = (character.encode(encoding, "surrogatepass") for encoding in ("utf-8", "utf-16-be"))
    units = [utf16[start : start + 2].hex() for start in range(0, len(utf16), 2)]
    forms = [
        re.escape(character), re.escape(html.escape(character)), "".join(f"%{byte:02x}" for byte in utf8),
        "".join(rf"\\+x{byte:02x}" for byte in utf8), "".join(rf"\\+u{unit}" for unit in units),
        rf"\\+U{ord(character):08x}", rf"\\+x{ord(character):02x}" if ord(character) < 256 else "",
        re.escape(utf8.decode("latin-1")), rf"\\+{re.escape(character)}" if character in "'\"\\/" else "",
        rf"\\+{_ESCAPES[character]}" if character in _ESCAPES else "", r"\+" if character == " " else "",
    ]  # fmt: skip
    return f"(?:{'|'.join(dict.fromkeys(form for form in forms if form))})"
