"""Prints docs/rabbitmq-definitions.json from what the program declares: for operators who declare it themselves.

python -m tests.docs.definitions_document
"""

import json
from pathlib import Path
from typing import Any

from actors.rabbitmq import topology

DOCUMENT = Path(__file__).parents[2] / "docs" / "rabbitmq-definitions.json"


class Declarations:
    """Stands for a channel and notes what is declared on it, in the form of RabbitMQ's definitions."""

    def __init__(self, virtual_host: str) -> None:
        self.virtual_host = virtual_host
        self.exchanges: list[dict[str, Any]] = []
        self.queues: list[dict[str, Any]] = []
        self.bindings: list[dict[str, Any]] = []

    def exchange_declare(self, name: str, kind: str, *, durable: bool, arguments: dict[str, Any] | None = None) -> None:
        self.exchanges.append({
            "name": name, "vhost": self.virtual_host, "type": kind, "durable": durable, "auto_delete": False,
            "internal": False, "arguments": arguments or {},
        })  # fmt: skip

    def queue_declare(self, name: str, *, durable: bool, arguments: dict[str, Any] | None = None) -> None:
        self.queues.append({
            "name": name, "vhost": self.virtual_host, "durable": durable, "auto_delete": False,
            "arguments": arguments or {},
        })  # fmt: skip

    def queue_bind(self, queue: str, exchange: str, routing_key: str) -> None:
        self.bindings.append({
            "source": exchange, "vhost": self.virtual_host, "destination": queue, "destination_type": "queue",
            "routing_key": routing_key, "arguments": {},
        })  # fmt: skip


def document(virtual_host: str = "/") -> str:
    declared = Declarations(virtual_host)
    topology.declare(declared)
    definitions = {
        "vhosts": [{"name": virtual_host}],
        "exchanges": declared.exchanges,
        "queues": declared.queues,
        "bindings": declared.bindings,
    }
    return json.dumps(definitions, indent=2) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
