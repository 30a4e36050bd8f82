"""The AMQP properties of a CloudEvent: an event of a batch, a command, an answer."""

from __future__ import annotations

import pika


def event_properties(identity: str, kind: str, at: float, correlation: str | None = None) -> pika.BasicProperties:
    """Those of a persistent message.

    Args:
        identity: the event's id.
        kind: its type, as `sora-batch.job.completed.v1`.
        at: when it was made, in seconds since 1970.
        correlation: what it belongs to: a command's id, or a batch's.
    """
    return pika.BasicProperties(
        content_type="application/cloudevents+json", delivery_mode=2, message_id=identity, type=kind,
        timestamp=int(at), app_id="sora-batch", correlation_id=correlation,
    )  # fmt: skip
