"""The files of docs/deploy: they call commands that exist, without privileges, and are described."""

import configparser
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from actors.cli.app import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"])


def pod() -> dict[str, Any]:
    deployment = next(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    return dict(deployment["spec"]["template"]["spec"])


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / "sora-batch.service")
    return parser


def ours() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose().items() if service["image"] == "sora-batch"}


def calls() -> list[list[str]]:
    """The arguments of each call of the program."""
    service = unit()["Service"]
    lines = [service[name].split()[1:] for name in ("ExecStartPre", "ExecStart")]
    containers = [each["args"] for each in (*pod()["initContainers"], *pod()["containers"])]
    return [*(each["command"] for each in ours().values()), *containers, *lines]


@pytest.mark.parametrize("words", calls(), ids=" ".join)
def test_each_call_is_one_that_the_program_takes(words: list[str]) -> None:
    command, *options = words
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    assert [word for word in options if word.startswith("-") and word not in shown] == []


def test_nothing_runs_as_root_or_writes_to_its_image() -> None:
    for service in ours().values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
    assert pod()["securityContext"]["runAsNonRoot"]
    for container in (*pod()["initContainers"], *pod()["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"]
    assert "\nUSER 10001:10001\n" in (DEPLOY / "Containerfile").read_text()
    assert unit()["Service"]["DynamicUser"] == "yes"


def test_two_serve_share_a_migrated_database_and_our_rabbitmq_conf() -> None:
    serving = [service for service in ours().values() if service["command"][0] == "serve"]
    assert len(serving) == 2
    assert all("migrate" in service["depends_on"] for service in serving)
    mounted = {mount.partition(":")[0] for mount in compose()["broker"]["volumes"]}
    assert all((DEPLOY / mount).resolve().exists() for mount in mounted if mount.startswith("."))
    assert (DEPLOY / "../../rabbitmq.conf").resolve() == ROOT / "rabbitmq.conf"
    assert "../../rabbitmq.conf" in mounted


def test_the_secrets_that_compose_asks_for_are_in_the_example() -> None:
    example = {line.partition("=")[0] for line in (DEPLOY / "compose.env.example").read_text().splitlines()}
    text = (DEPLOY / "compose.yaml").read_text()
    assert {name for name in ("POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "WEB_TOKEN") if name in text} <= example


def test_kubernetes_probes_ask_the_listener() -> None:
    (serve,) = pod()["containers"]
    assert serve["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert serve["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_table_names_each_file_that_is_run() -> None:
    told = (ROOT / "docs" / "operations.md").read_text()
    files = {path.name for path in DEPLOY.iterdir()} - {"compose.env.example", "rabbitmq-network.conf", ".env"}
    assert {name for name in files if f"(deploy/{name})" not in told} == set()
