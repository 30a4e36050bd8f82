"""Which server made what, apart from the key that it was asked with; what a POST met; what is known of a server.

`provider` stays as it was, for the version before: the base URL and the fingerprint of the key in one text.
"""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

STATEMENTS = """
ALTER TABLE batches ADD COLUMN server TEXT;
ALTER TABLE submissions ADD COLUMN server TEXT;
ALTER TABLE submissions ADD COLUMN key_fingerprint VARCHAR(16);
ALTER TABLE submissions ADD COLUMN met TEXT;
ALTER TABLE submissions ADD COLUMN timed_out BOOLEAN;
ALTER TABLE submissions ADD COLUMN former_remote_id TEXT;
CREATE TABLE servers (
    server TEXT PRIMARY KEY, reuses_ids BOOLEAN NOT NULL DEFAULT FALSE,
    deletes_only_records BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX submissions_server ON submissions (server, remote_id);
CREATE INDEX submissions_open ON submissions (server, digest) WHERE state IN ('intended', 'unknown', 'clashed')
"""


def up(_migrator: Any, db: Any) -> None:
    """Add the columns, and fill in what the provider says."""
    for statement in STATEMENTS.split(";"):
        db.execute_sql(statement)
    mark = "%s" if type(db).__name__.startswith("PooledPostgresql") else "?"
    found = db.execute_sql("SELECT provider FROM submissions UNION SELECT provider FROM batches").fetchall()
    for (provider,) in found:
        if provider is None:
            continue
        url, _, key = provider.partition("#")
        values = (_normal(url), provider)
        db.execute_sql(f"UPDATE batches SET server={mark} WHERE provider={mark}", values)
        db.execute_sql(
            f"UPDATE submissions SET server={mark}, key_fingerprint={mark} WHERE provider={mark}",
            (values[0], key, provider),
        )


def _normal(url: str) -> str:
    """The base URL without what does not tell servers apart; as it was written at the time of this migration."""
    parts = urlsplit(url)
    if not parts.hostname:
        return url
    port = "" if parts.port in (None, {"http": 80, "https": 443}.get(parts.scheme)) else f":{parts.port}"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return urlunsplit((parts.scheme.lower(), f"{host}{port}", parts.path.rstrip("/"), "", ""))
