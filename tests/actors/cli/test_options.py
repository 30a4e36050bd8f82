"""Options that several commands have, as the fields of one dataclass."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from actors.cli.options import spelled_out


@dataclass(frozen=True)
class Asked:
    what: Annotated[str, typer.Argument()]
    size: Annotated[str | None, typer.Option("--size")] = None
    words: Annotated[list[str] | None, typer.Option("--word", "-w")] = None


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def app(told: list[Any]) -> typer.Typer:
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @spelled_out(dry_run="size")
    def ask(
        asked: Asked,
        dry_run: Annotated[bool, typer.Option("--dry-run")] = False,
        json: Annotated[bool, typer.Option("--json")] = False,
    ) -> None:
        told.append((asked, dry_run, json))

    return app


def test_a_command_gets_its_options_as_one(app: typer.Typer, told: list[Any]) -> None:
    result = CliRunner().invoke(app, ["lake", "-w", "one", "--json", "-w", "two"])
    assert result.exit_code == 0, result.output
    assert told == [(Asked("lake", words=["one", "two"]), False, True)]


def test_an_option_of_its_own_stands_where_it_is_said(app: typer.Typer) -> None:
    said = CliRunner().invoke(app, ["--help"]).output
    places = [said.index(name) for name in ("--size", "--dry-run", "--word", "--json")]
    assert places == sorted(places)


def test_what_is_missing_is_named(app: typer.Typer, told: list[Any]) -> None:
    result = CliRunner().invoke(app, ["--size", "large"])
    assert (result.exit_code, told) == (2, [])
    assert "what" in result.output
