"""All that a run needs: servers of its own, a network in between, and the services. Everything is on loopback.

Each service has its own way to the database and to the broker. The way to the provider is one for all: its address is
part of what binds a batch to its provider.
"""

from __future__ import annotations

import json
import random
import signal
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import psycopg
from obstore.store import from_url
from psycopg.rows import dict_row

from tests.chaos.customer import Listener
from tests.chaos.proxy import Network, Proxy
from tests.chaos.service import Service
from tests.provider.client import Provider
from tests.provider.options import PRICE_TELLINGS, Options
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.s3 import Gate, S3Server, s3_server

SERVICES = 3
SETTLE = 2.0
"""Seconds. Longer than anything in this network takes to arrive, or in a listing to appear."""
LEASE = 5.0
STORED_UNDER = "chaos"
"""The folder of the bucket."""
END_SECONDS = 15.0

SECONDS, RATE = 4, "0.1"
"""The duration of each video, and US dollars a second."""
CEILINGS = ("5000 USD", "6000 USD, 100000 seconds per month", "7000 USD per day, 50000 videos")
"""What the database may spend, in the words of each service: never reached, and changed by each start."""

SETTINGS: dict[str, Any] = {
    "batch_lease": int(LEASE * 1000),
    "batch_parallel": 8,
    "log_level": "info",
    "progress_interval": 500,
    "sora_listing": "whole",
    "sora_poll_interval": 200,
    "sora_seconds": SECONDS,
    "sora_settle": int(SETTLE * 1000),
    "sora_submit_timeout": 4000,
}
"""Milliseconds: so short that a lot happens in a minute."""


class House:
    """See the module. What it starts it ends, and each process ends with the run, however that dies."""

    def __init__(self, folder: Path, seed: int, *, bucket: bool = False) -> None:
        """`bucket`: files go into one, and each service has a folder of its own."""
        self.folder, self.videos = folder, folder / "videos"
        self._seed, self._in_a_bucket = seed, bucket
        self.bucket: S3Server | None = None
        self.gate: Gate | None = None
        """Where requests to the bucket fail."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        self.provider = stack.enter_context(Provider())
        tells = random.Random(self._seed).choice([None, *PRICE_TELLINGS])  # noqa: S311  (to be repeatable)
        options = Options(
            latency=(0.2, 2.5), content_bytes=50_000, fail_rate=0.04, seed=self._seed, prices={"*": RATE}, tells_price=tells
        )  # fmt: skip
        self.provider.options(**asdict(options))
        self._prices = self.folder / "prices.json"
        self._prices.write_text(json.dumps({"*": {"output_cost_per_second": float(RATE)}}))
        self.postgresql = stack.enter_context(PostgreSQL())
        self._database = self.postgresql.create_database()
        self.rabbitmq = stack.enter_context(RabbitMQ())
        self.network = stack.enter_context(Network())
        self.to_provider = self.network.proxy(self.provider.port)
        self.listener = stack.enter_context(Listener(self.rabbitmq.url))
        if self._in_a_bucket:
            self.bucket = stack.enter_context(s3_server("moto", self.folder / "s3"))
            self.gate = Gate(self.bucket)
            stack.callback(self.gate.close)
        self.services: list[Service] = []
        self.proxies: dict[str, Proxy] = {"provider": self.to_provider}
        for number in range(1, SERVICES + 1):
            service = self._service(f"service{number}", "serve", sora_budget=CEILINGS[number % len(CEILINGS)])
            self.services.append(service)
            stack.callback(service.close)
        self.rival = self._service("rival", "resume")
        stack.callback(self.rival.close)

    def _service(self, name: str, *command: str, **settings: str) -> Service:
        to_database, to_broker = self.network.proxy(self.postgresql.port), self.network.proxy(self._broker_port)
        self.proxies |= {f"{name} to database": to_database, f"{name} to broker": to_broker}
        there = {
            "openai_base_url": f"http://127.0.0.1:{self.to_provider.port}/v1",
            "database_url": _by(to_database, self.database_url, self.postgresql.port),
            "amqp_url": _by(to_broker, self.rabbitmq.url, self._broker_port),
            "video_dir": str(self.videos),
            "sora_prices": str(self._prices),
        }
        if self.bucket is not None and self.gate is not None:
            to_store = self.proxies[f"{name} to store"] = self.network.proxy(self.gate.port)
            there |= self.bucket.settings(STORED_UNDER, to_store.port)
            there["video_dir"] = str(self.videos / name)
        return Service(name, SETTINGS | there | settings, self.folder, *command)

    def objects(self) -> dict[str, bytes]:
        """What is in the bucket, by its address: asked for with no code of the product."""
        assert self.bucket is not None
        given = self.bucket.settings(STORED_UNDER)
        config = {name.lower(): value for name, value in given.items() if name.startswith("AWS_")}
        store = from_url(given["VIDEO_STORE"], config=config, client_options={"allow_http": True})  # type: ignore[arg-type]
        paths = [meta["path"] for page in store.list() for meta in page if meta["path"] != ".sora-batch"]
        return {f"{given['VIDEO_STORE']}/{path}": bytes(store.get(path).bytes()) for path in paths}

    @property
    def _broker_port(self) -> int:
        return int(self.rabbitmq.url.rpartition(":")[2].rstrip("/"))

    @property
    def database_url(self) -> str:
        return self.postgresql.url(self._database)

    def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """Ask the database itself, or change it, as another program would.

        Raises:
            psycopg.OperationalError: it is away.
        """
        with psycopg.connect(self.database_url, row_factory=dict_row, connect_timeout=5) as connection:
            cursor = connection.execute(sql.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def end_services(self) -> dict[str, int | None]:
        """End them in order, all at once; return the exit codes (None: not in time)."""
        for service in self.services:
            service.send(signal.SIGTERM)
        return {service.name: service.wait(END_SECONDS) for service in self.services}


def _by(proxy: Proxy, url: str, port: int) -> str:
    return url.replace(f":{port}/", f":{proxy.port}/")
