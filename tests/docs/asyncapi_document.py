"""Prints docs/asyncapi.yaml and docs/schemas/ from the code: `python -m tests.docs.asyncapi_document` writes them.

The shapes are those of the models that requests are read with and that batches are told with; what an event adds to
them is said here, and every event that the tests hear is held against it.
"""

import copy
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

import actors
from actors.batch.command_data import DATA, CommandName
from actors.batch.events import FINAL_EVENTS, EventName
from actors.batch.job_views import Job
from actors.batch.views import Batch, CancellationSummary, Charge, Progress
from actors.expectations import UNIT_PATTERN
from actors.rabbitmq import topology
from actors.web.api.openapi import read_schemas, told_schemas
from storage.states import BatchStatus

FOLDER = Path(__file__).parents[2] / "docs"
DOCUMENT, SCHEMAS = FOLDER / "asyncapi.yaml", FOLDER / "schemas"
Schema = dict[str, Any]

_TOLD: list[type[BaseModel]] = [Batch, Job, Progress, CancellationSummary, Charge]
_ID = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_TRACE: Schema = {"traceparent": {"type": "string"}, "tracestate": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 1}
_FIELD_ERROR = {
    "type": "object",
    "properties": {
        "field": {"type": "string", "description": "A JSON Pointer into the command; empty: the whole command."},
        "message": {"type": "string"},
        "expected": {"type": "string"},
        "code": {"type": "string"},
    },
    "required": ["field", "message", "expected", "code"],
}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _object(properties: Schema, *optional: str) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [each for each in properties if each not in optional],
    }


def _definitions() -> dict[str, Schema]:
    """The models' schemas by name. What is told has all its fields always."""
    told = told_schemas(_TOLD, "#/$defs/{model}")
    read = read_schemas(DATA.values(), "#/$defs/{model}")
    shortened = copy.deepcopy(told["Batch"])
    shortened["description"] = "A batch with as many jobs as the message may hold; `jobs_omitted` counts the others."
    shortened["properties"]["jobs_omitted"] = _COUNT
    return {**read, **told, "ToldBatch": shortened, "FieldError": _FIELD_ERROR}


def _events() -> dict[str, Schema]:
    """The data of each event, by the event's name."""
    snapshot = {"batch_id": _ID, "status": _reference("BatchStatus"), "progress": _reference("Progress")}
    schemas = {}
    for name in EventName:
        data, optional = dict(snapshot), list[str]()
        if name.startswith("job."):
            data["job"] = _reference("Job")
        if name is EventName.BATCH_RETRIED:
            data["job_ids"] = {"type": "array", "items": {"type": "string"}}
        if name is EventName.BATCH_UPDATED:
            optional = ["metadata", "budget"]
            data["metadata"] = {"type": "object"}
            data["budget"] = {"type": "array", "items": _reference("BudgetRequest")}
        if name is EventName.BATCH_BUDGET_REACHED:
            data["budget"] = _BUDGET
        if name in FINAL_EVENTS.values():
            data["batch"] = _reference("ToldBatch")
        if name is FINAL_EVENTS[BatchStatus.CANCELLED]:
            data["reason"] = {"type": ["string", "null"]}
            data["may_be_charged"] = {"type": "array", "items": _reference("Charge")}
        schemas[name.value] = _object(data, *optional)
    return schemas


_MICROS = {"type": "integer", "description": "Millionths: of the currency's unit, of a second, of a video."}
_BUDGET = {
    "type": "object",
    "additionalProperties": False,
    "required": ["scope", "period", "unit", "ceiling_micros", "used_micros", "amount_micros"],
    "properties": {
        "scope": {"type": "string", "enum": ["batch", "day", "month", "total"]},
        "period": {"type": ["string", "null"], "description": "A UTC day or month."},
        "unit": {"type": "string", "pattern": UNIT_PATTERN},
        "ceiling_micros": _MICROS,
        "used_micros": _MICROS,
        "amount_micros": {**_MICROS, "description": "What the video that did not fit would have added."},
    },
}


def _answers() -> dict[str, Schema]:
    commands = {"type": "string", "enum": [each.value for each in CommandName]}
    accepted = {
        "command": commands,
        "batch_id": _ID,
        "job_ids": {"type": "array", "items": {"type": "string"}},
        "fetching": {
            "type": "array",
            "items": {"type": "string"},
            "description": "After a retry: the completed jobs whose missing file is downloaded again.",
        },
        "summary": _reference("CancellationSummary"),
    }
    rejected = {
        "command": {"anyOf": [commands, {"type": "null"}]},
        "errors": {"type": "array", "items": _reference("FieldError")},
    }
    return {
        "command.accepted": _object(accepted, "job_ids", "fetching", "summary"),
        "command.rejected": _object(rejected),
    }


def _reports() -> dict[str, Schema]:
    data = {
        "batch_id": _ID,
        "status": _reference("BatchStatus"),
        "progress": _reference("Progress"),
        "as_of_sequence": {
            "type": "integer",
            "description": "The sequence number of the last event included in the report.",
        },
        "batch": _reference("ToldBatch"),
    }
    return {"batch.reported": _object(data)}


def _messages() -> dict[str, Schema]:
    """The whole document of each message, by its type."""
    definitions = _definitions()
    messages = {}
    for command, model in DATA.items():
        messages[f"sora-batch.{command.value}.v1"] = _document(
            f"sora-batch.{command.value}.v1",
            definitions[model.__name__],
            {"id": {"type": "string", "minLength": 1}, "source": {"type": "string", "minLength": 1}, **_TRACE},
            "",
            *_TRACE,
        )
    told = {"subject": {"type": "string"}, "time": {"type": "string", "format": "date-time"}}
    fixed = {"datacontenttype": {"const": "application/json"}}
    answer = {
        "id": {"type": "string"},
        "source": {"type": "string"},
        **told,
        **fixed,
        "correlationid": {"type": "string"},
    }
    sequence = {"type": "string", "pattern": "^[0-9]{10}$"}
    recorded = {"id": {"type": "string"}, "source": {"type": "string"}, **told, **fixed, "sequence": sequence, **_TRACE}
    for name, data in _events().items():
        messages[f"sora-batch.{name}.v1"] = _document(f"sora-batch.{name}.v1", data, recorded, name, *_TRACE)
    for name, data in (_answers() | _reports()).items():
        optional = () if name == "batch.reported" else ("subject",)
        messages[f"sora-batch.{name}.v1"] = _document(f"sora-batch.{name}.v1", data, answer, name, *optional)
    return {kind: _with_definitions(message, definitions) for kind, message in messages.items()}


def _document(kind: str, data: Schema, attributes: Schema, name: str = "", *optional: str) -> Schema:
    """A CloudEvents document around its data."""
    properties = {"specversion": {"const": "1.0"}, "type": {"const": kind}, **attributes}
    if name:
        properties["dataschema"] = {"const": f"urn:sora-batch:{name}.v1"}
    return _object({**properties, "data": data}, *optional)


def _with_definitions(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """A schema that stands alone: with the definitions that it needs, and those that these need."""
    needed: dict[str, Schema] = {}
    missing = _names_in(schema)
    while missing:
        name = missing.pop()
        needed[name] = definitions[name]
        missing |= _names_in(definitions[name]) - set(needed)
    return {**schema, "$defs": dict(sorted(needed.items()))} if needed else schema


def _names_in(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_names_in, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].removeprefix("#/$defs/")} if isinstance(schema.get("$ref"), str) else set()
    return own | set().union(*map(_names_in, schema.values()))


def schemas() -> dict[str, Schema]:
    """A JSON Schema for each type of message, by the type."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {kind: {**head, "title": kind, **schema} for kind, schema in _messages().items()}


def document() -> str:
    """The whole of docs/asyncapi.yaml."""
    kinds = list(_messages())
    commands = [f"sora-batch.{each.value}.v1" for each in CommandName]
    replayed = [kind for kind in kinds if kind.removeprefix("sora-batch.").removesuffix(".v1") in set(EventName)]
    published = [kind for kind in kinds if kind not in commands and "batch.reported" not in kind]
    channels = {
        "commands": (topology.COMMANDS, "{command}", commands),
        "events": (topology.EVENTS, "{entity}.{event}.{batchId}.{jobId}", published),
        "replays": (
            topology.REPLAYS,
            "{entity}.{event}.{batchId}.{jobId}",
            [*replayed, "sora-batch.batch.reported.v1"],
        ),
    }
    content = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "sora-batch",
            "version": actors.__version__,
            "description": "Batches of videos: commands in, progress events out. Every message is a CloudEvents 1.0 document.",
        },
        "defaultContentType": "application/cloudevents+json",
        "servers": {
            "rabbitmq": {"host": "localhost:5672", "protocol": "amqp", "description": "The node that AMQP_URL names."}
        },
        "channels": {name: _channel(*channel) for name, channel in channels.items()},
        "operations": {
            "takeCommands": _operation("receive", "commands", "The service takes commands."),
            "publishEvents": _operation("send", "events", "Events of batches and jobs, and the answers to commands."),
            "publishReplays": _operation(
                "send", "replays", "Reports and replayed events, as requested by `report` and `replay`."
            ),
        },
        "components": {"messages": {kind: _message(kind) for kind in kinds}},
    }
    return yaml.safe_dump(content, sort_keys=False, width=120)


def _channel(exchange: str, key: str, kinds: list[str]) -> Schema:
    return {
        "address": key,
        "description": f"The exchange {exchange}; the address is the routing key, without a job id for an event of a batch.",
        "messages": {_short(kind): {"$ref": f"#/components/messages/{kind}"} for kind in kinds},
        "parameters": {name: {} for name in _parameters(key)},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": "topic", "durable": True, "autoDelete": False, "vhost": "/"},
            }
        },
    }


def _parameters(key: str) -> list[str]:
    return [part.strip("{}") for part in key.split(".")]


def _operation(action: str, channel: str, summary: str) -> Schema:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _message(kind: str) -> Schema:
    return {"name": kind, "contentType": "application/cloudevents+json", "payload": {"$ref": f"./schemas/{kind}.json"}}


def _short(kind: str) -> str:
    return kind.removeprefix("sora-batch.").removesuffix(".v1").replace(".", "_")


def strict(schema: Any) -> Any:
    """The same, where nothing may be there that is not described: for tests."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        inner.setdefault("additionalProperties", False)
    return inner


def files() -> dict[Path, str]:
    """What is to be written where."""
    texts = {SCHEMAS / f"{kind}.json": json.dumps(schema, indent=2) + "\n" for kind, schema in schemas().items()}
    return {DOCUMENT: document(), **texts}


if __name__ == "__main__":
    SCHEMAS.mkdir(exist_ok=True)
    for old in SCHEMAS.glob("*.json"):
        old.unlink()
    for path, text in files().items():
        path.write_text(text)
