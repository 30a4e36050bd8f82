"""The peewee models, made anew for each database: two services in one process never share one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

from peewee import (
    BlobField,
    BooleanField,
    CharField,
    CompositeKey,
    DoubleField,
    IntegerField,
    JSONField,
    Model,
    TextField,
)


@dataclass(frozen=True, slots=True)
class Tables:
    """One model a table. Their columns are described by the records of `storage.records`."""

    owner: Any
    batch: Any
    job: Any
    submission: Any
    journal: Any
    reference: Any


def _json(**options: Any) -> JSONField:
    # Not escaped: SQLite finds a key that is not ASCII only as it is written.
    return JSONField(dumps=partial(json.dumps, ensure_ascii=False), **options)


def make_tables(database: Any) -> Tables:
    """Declare the models on `database`. `migrations/` creates what they expect."""

    class Base(Model):
        class Meta:
            legacy_table_names = False

    Base._meta.database = database  # noqa: SLF001  (peewee's own way to bind a base class late)

    class Owner(Base):
        id = CharField(primary_key=True)
        host = TextField()
        boot = TextField()
        pid = IntegerField()
        started = TextField()
        lease_until = DoubleField()

        class Meta:
            table_name = "owners"

    class Batch(Base):
        id = CharField(primary_key=True)
        name = TextField(null=True)
        metadata = _json()
        status = CharField()
        concurrency = IntegerField()
        timeout = DoubleField()
        digest = CharField()
        provider = TextField(null=True)
        total = IntegerField()
        completed = IntegerField()
        failed = IntegerField()
        cancelled = IntegerField()
        processing = IntegerField()
        error = _json(null=True)
        sequence = IntegerField()
        epoch = IntegerField()
        owner = CharField(null=True)
        wanted = BooleanField()
        claims = IntegerField()
        spent = DoubleField()
        created_at = DoubleField()
        updated_at = DoubleField()
        started_at = DoubleField(null=True)
        completed_at = DoubleField(null=True)

        class Meta:
            table_name = "batches"

    class Job(Base):
        id = CharField(primary_key=True)
        batch_id = CharField()
        position = IntegerField()
        status = CharField()
        prompt = TextField()
        duration = IntegerField(null=True)
        model = TextField(null=True)
        size = CharField(null=True)
        reference = _json(null=True)
        metadata = _json()
        remote_id = TextField(null=True)
        progress = IntegerField()
        attempts = IntegerField()
        error = _json(null=True)
        video = _json(null=True)
        created_at = DoubleField()
        updated_at = DoubleField()
        started_at = DoubleField(null=True)
        completed_at = DoubleField(null=True)

        class Meta:
            table_name = "jobs"

    class Submission(Base):
        id = CharField(primary_key=True)
        job_id = CharField()
        batch_id = CharField()
        attempt = IntegerField()
        digest = CharField()
        provider = TextField()
        sender = CharField()
        intended_at = DoubleField()
        state = CharField()
        remote_id = TextField(null=True)
        adopted = BooleanField()
        closed_at = DoubleField(null=True)
        note = TextField(null=True)

        class Meta:
            table_name = "submissions"

    class Journal(Base):
        batch_id = CharField()
        sequence = IntegerField()
        type = CharField()
        key = TextField()
        body = TextField()
        created_at = DoubleField()

        class Meta:
            table_name = "journal"
            primary_key = CompositeKey("batch_id", "sequence")

    class Reference(Base):
        digest = CharField(primary_key=True)
        name = TextField()
        content_type = CharField()
        data = BlobField()

        class Meta:
            # "references" is a word of SQL's own.
            table_name = "input_references"

    return Tables(Owner, Batch, Job, Submission, Journal, Reference)
