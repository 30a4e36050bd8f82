"""Whether a bucket of S3 removes incomplete uploads by itself: asked for with a signed request, since obstore can't."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import re
import time
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from storage.bucket_client import endpoint_of

_SECONDS = 5.0
_MOST = 1 << 20
_RULE = re.compile(rb"<Rule>(?:(?!</Rule>).)*</Rule>", re.DOTALL)
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_MISSING = (
    "the bucket has no lifecycle rule that removes incomplete uploads: what a killed process leaves of one stays there "
    "and is charged for; docs/operations.md has the rule"
)


def doubt(uri: str, given: Mapping[str, str]) -> str | None:
    """What is doubtful about a bucket's lifecycle rules; None: incomplete uploads are removed.

    Args:
        uri: of the bucket.
        given: how it is reached, by the names of environment variables.
    """
    if not uri.startswith("s3://"):
        return "only s3:// can be checked for a rule that removes incomplete uploads: check the bucket yourself"
    if not all(given.get(name) for name in _KEYS):
        return _unknown("the credentials are not in the environment")
    try:
        status, answer = _ask(urlsplit(uri).netloc, given)
    except (OSError, http.client.HTTPException) as error:
        return _unknown(str(error))
    if status != 404 and (status != 200 or b"<LifecycleConfiguration" not in answer):
        return _unknown(f"HTTP {status}" if status != 200 else "this server answers with something else")
    rules = [rule for rule in _RULE.findall(answer) if b"<Status>Enabled</Status>" in rule]
    return None if any(b"<AbortIncompleteMultipartUpload>" in rule for rule in rules) else _MISSING


def _unknown(why: str) -> str:
    return f"can't tell whether a lifecycle rule removes incomplete uploads ({why}): check the bucket yourself"


def _ask(bucket: str, given: Mapping[str, str]) -> tuple[int, bytes]:
    region = given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION") or "us-east-1"
    named = endpoint_of("s3", given)
    parts = urlsplit(named[1] if named else f"https://s3.{region}.amazonaws.com")
    hosted = given.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() == "true"
    path = "/" if hosted else f"{parts.path.rstrip('/')}/{bucket}"
    query = _signed(parts.netloc, path, region, given)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.netloc, timeout=_SECONDS)
    try:
        connection.request("GET", f"{path}?{query}")
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST)
    finally:
        connection.close()


def _signed(host: str, path: str, region: str, given: Mapping[str, str]) -> str:
    """The query of a request for the rules, signed with AWS Signature Version 4."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    fields = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{given[_KEYS[0]]}/{scope}", "X-Amz-Date": moment,
        "X-Amz-Expires": "60", "X-Amz-SignedHeaders": "host", "lifecycle": "",
    }  # fmt: skip
    if token := given.get("AWS_SESSION_TOKEN"):
        fields["X-Amz-Security-Token"] = token
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(fields.items()))
    request = f"GET\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    key = f"AWS4{given[_KEYS[1]]}".encode()
    for part in (
        *scope.split("/"),
        f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}",
    ):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return f"{query}&X-Amz-Signature={key.hex()}"
