"""What a bucket answers with instead of doing what it was asked, as one sentence with the way out."""

from __future__ import annotations

import errno
import re

from storage.secrets import Secrets

_STATUS = re.compile(r"status code: (\d{3})")
_CODE, _MESSAGE = (
    re.compile(r"<Code>\s*([^<]{1,100}?)\s*</Code>"),
    re.compile(r"<Message>\s*([^<]{1,200}?)\s*</Message>"),
)
_ENDPOINT = re.compile(r"Error performing [A-Z]+ (https?://[^/\s]+)")
_REGION = re.compile(r"<Region>([\w-]+)</Region>|expecting '([\w-]+)'")
_REGION_CODES = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "TemporaryRedirect"}
)
_PASSING = frozenset({"408", "429", "500", "502", "503", "504", "507", "509"})
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_SERVICE_ACCOUNT",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}
_PLAIN_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}
NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound")
_UPLOAD_GONE = frozenset({"NoSuchUpload", "InvalidBlockList"})
"""An upload in parts was given up, or it was completed and the answer was lost: the next attempt finds out."""
_RIGHTS = "which must allow to read, write, list and delete objects there"


class StoreFault(OSError):
    """A store could not do what it was asked to."""

    def __init__(self, text: str, *, passing: bool) -> None:
        """`passing`: it may go by itself, and is worth waiting for."""
        super().__init__(errno.EIO, text)
        self.passing = passing

    def __str__(self) -> str:
        return str(self.strerror)


def explained(uri: str, error: BaseException) -> StoreFault:
    """The fault that an error of obstore stands for."""
    text = str(error)
    status, code = _found(_STATUS, text), _found(_CODE, text)
    endpoint = _found(_ENDPOINT, text)
    scheme, _, rest = uri.partition("://")
    bucket = rest.partition("/")[0]
    there = f"the bucket {bucket}" + (f" at {endpoint}" if endpoint else "")
    said = ", ".join(filter(None, (f"HTTP {status}" if status else "", code, _found(_MESSAGE, text))))
    passing = False
    if code in _UPLOAD_GONE:
        why, passing = f"{there} has no such upload any more ({said}): it is sent again", True
    elif NO_BUCKET.fullmatch(code) or (isinstance(error, FileNotFoundError) and status == "404"):
        why = f"{there} does not exist: create it, or correct VIDEO_STORE"
    elif code in _REGION_CODES or status in ("301", "307") or "configured region" in text:
        region = _REGION.search(text)
        named = f", {region[1] or region[2]}" if region else ""
        why = f"{there} is in another region{named}{f' ({said})' if said else ''}: set AWS_REGION to it"
    elif status in ("401", "403") or "169.254.169.254" in text or "credentials" in text.lower():
        what = f"refused access ({said})" if said else "was asked without credentials"
        why = f"{there} {what}: check {_KEYS.get(scheme, 'the credentials')}, {_RIGHTS}"
    elif status in _PASSING:
        full = "; its disk is full" if status == "507" else ""
        why, passing = f"{there} can't do it just now ({said}{full})", True
    elif "BadScheme" in text or "scheme is not allowed" in text:
        why = f"{there} is reached by plain HTTP: set {_PLAIN_HTTP[scheme]}=true to allow that"
    elif "error sending request" in text or "HTTP error" in text or "timed out" in text.lower():
        why, passing = f"{there} can't be reached ({_met(text)}): check {_ENDPOINTS[scheme]} and the network", True
    else:
        why = f"{there}: {said or _first_line(text)}"
    return StoreFault(why, passing=passing)


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def _met(text: str) -> str:
    """What the connection met, in few words: `Connection refused`."""
    found = re.search(r'message: "([^"]{1,100})"|kind: (TimedOut|ConnectionRefused|ConnectionReset)\b', text)
    if found:
        return found[1] or found[2]
    return "timed out" if "timed out" in text.lower() or "TimedOut" in text else "no answer"


def _first_line(text: str) -> str:
    return Secrets().mask(text.partition("\n")[0][:300])
