"""Writes the pages that are made of the program: keys.md from the models, cli.md from the commands.

A test holds both to their sources.
"""

import json
import re
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

from eqco.commands.cli import app
from eqco.study.load import schema

DOCS = Path(__file__).parents[1]
FIRST = """\
# Keys of a study file

Every key with its values and its default, made of the models that check study files. [Study
files](../params/README.md) explains what they are for. A mapping's values are by the names of axes.
"""
HEAD = "| key | value | default | meaning |\n| --- | --- | --- | --- |"
LIMITS = {"exclusiveMinimum": ">", "gt": ">", "minimum": "≥", "ge": "≥"}
LIMITS |= {"exclusiveMaximum": "<", "lt": "<", "maximum": "≤", "le": "≤"}


def cli() -> str:
    """The page of all commands, as typer writes it."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="eqco")
    page = get_docs_for_click(obj=command, ctx=context, name="eqco", title="Command line")
    return page.replace("```console", "```text").replace("&#x27;", "'").rstrip() + "\n"


def keys() -> str:
    """The page of all keys: a table of the file's, then one of each section's, in its order."""
    study = json.loads(schema())
    places: dict[str, str] = {}
    _find(study, study["$defs"], "", places)
    parts = [FIRST, _table(study, places)]
    for name, place in places.items():
        model = study["$defs"][name]
        about = " ".join(model["description"].replace("``", "`").split())
        parts += [f"\n## {place}\n\n{about}\n", _table(model, places)]
    return "\n".join(parts) + "\n"


def _find(model: dict[str, Any], models: dict[str, Any], path: str, places: dict[str, str]) -> None:
    """Add the sections below a model, each by the dotted key where it first stands."""
    for key, field in model["properties"].items():
        for name in re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(field)):
            if name in places or name == "With":  # which has every key of the recipe again
                continue
            kind = models[name]["properties"].get("kind", {}).get("const")
            places[name] = f"{path}{key}" + (f": {kind}" if kind else "")
            _find(models[name], models, f"{path}{key}.", places)


def _table(model: dict[str, Any], places: dict[str, str]) -> str:
    rows = [
        f"| `{key}` | {_values(field, places)} | {_default(key, field, model)} "
        f"| {field.get('description', '')} |"
        for key, field in model["properties"].items()
    ]
    return "\n".join([HEAD, *rows])


def _default(key: str, field: dict[str, Any], model: dict[str, Any]) -> str:
    if key in model.get("required", ()):
        return "required"
    default = field.get("default")
    # a section has those of its keys, and a default that is null is none
    return "optional" if default in (None, {}, []) or isinstance(default, dict) else _code(default)


def _values(field: dict[str, Any], places: dict[str, str]) -> str:
    """The values that a key may have, in words."""
    if name := field.get("$ref", "").rpartition("/")[2]:
        place = places.get(name)
        return f"[{place}](#{_anchor(place)})" if place else "lists by dotted key"
    for union in ("anyOf", "oneOf"):
        if union in field:
            may_be_null = field.get("default") is not None  # else null is the default
            kinds = [one for one in field[union] if one.get("type") != "null" or may_be_null]
            return ", ".join(_values(kind, places) for kind in kinds)
    if names := field.get("enum") or [field[name] for name in ("const",) if name in field]:
        return ", ".join(map(_code, names))
    match field["type"]:
        case "array":
            name = "pair" if field.get("maxItems") == 2 else "list"
            return f"{name} of {_values(field['items'], places)}"
        case "boolean":
            return "`true`, `false`"
        case "null":
            return "`null`"
        case "object":
            return f"mapping to {_values(field['additionalProperties'], places)}"
        case "string":
            return f"text like `{field['pattern']}`" if "pattern" in field else "text"
        case [*kinds]:
            return " or ".join(_values({"type": kind}, places) for kind in kinds)
        case kind:
            limits = [f"{sign} {field[name]}" for name, sign in LIMITS.items() if name in field]
            return f"{kind} {', '.join(limits)}".rstrip()


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _anchor(heading: str) -> str:
    """The anchor of a heading, as code hosts and the site make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    (DOCS / "keys.md").write_text(keys())
    (DOCS / "cli.md").write_text(cli())
