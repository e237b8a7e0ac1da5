"""A YAML file to a checked study: one clear line for a mistake, and the JSON schema for editors."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from eqco.errors import InputError
from eqco.study.study import Study


def parse_study(values: Any, source: str) -> Study:
    """Check a study's values.

    Args:
        values: the content of the YAML file.
        source: the file's name, for messages.

    Raises:
        InputError: naming file, key, value and what is allowed.
    """
    if not isinstance(values, dict):
        raise InputError(f"{source}: a study is a mapping of keys; see params/README.md")
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        # a default that waits for a wrong value is no mistake of its own
        first, *others = (e for e in error.errors() if e["type"] != "default_factory_not_called")
        more = f" (and {len(others)} more)" if others else ""
        raise InputError(f"{source}: {_line(first)}{more}") from None


def load_study(path: Path) -> Study:
    """Read and check a study file; raises InputError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    return parse_study(values, str(path))


def _line(error: ErrorDetails) -> str:
    tags = {
        *("digits", "fashion-mnist", "image-folder", "jpeg-folder", "parquet", "torchvision"),
        *("float", "literal['eqco']"),
        *("all", "list"),
        *("mapping", "mappings"),
    }
    key = ".".join(str(part) for part in error["loc"] if part not in tags)
    message = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] == "missing":
        return f"{key}: is missing"
    if error["type"] == "message" or isinstance(error["input"], dict):
        return f"{key}: {message}" if key else message
    return f"{key}: {error['input']!r}: {message}"


def schema() -> str:
    """The JSON schema of a study file, as text."""
    return json.dumps(Study.model_json_schema(), indent=2) + "\n"
