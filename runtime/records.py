"""Frozen dataclasses to and from JSON, with every type checked.

A record is a frozen dataclass of plain values, other records, tuples, mappings with string keys,
``Literal`` choices and unions of these. The file of a record carries the version of its schema, so
that a file of a newer reslite is refused by name and not misread.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from runtime.atomic import replacing
from runtime.errors import UserError

Record = TypeVar("Record")

_FIRST_SCHEMA = 1
"""Schema of files without a version."""

_NOUNS: Mapping[Any, str] = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "true or false",
    NoneType: "null",
}


class RecordError(ValueError):
    """JSON that does not fit its record; the message begins with the place in the JSON."""


def read_record(path: Path, kind: type[Record], schema: int, remedy: str) -> Record:
    """Read the JSON file of a record.

    Args:
        path: The file.
        kind: Class of the record.
        schema: Version of the schema that ``kind`` describes; a file without one has version 1.
        remedy: What to do about a file that cannot be used, for the error.

    Raises:
        FileNotFoundError, NotADirectoryError: If there is no such file.
        UserError: If the file is damaged or of another schema version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.pop("schema", _FIRST_SCHEMA) if isinstance(content, dict) else schema
        if found != schema:
            newer = isinstance(found, int) and found > schema
            raise UserError(
                f"{path}: schema {found!r} found, {schema} expected by this version of reslite; "
                f"{'update reslite or ' if newer else ''}{remedy}"
            )
        return from_json(kind, content)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); {remedy}") from error


def write_record(path: Path, record: Any, schema: int) -> None:
    """Write a record as the JSON file that ``read_record`` reads, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(to_text(record, schema), encoding="utf-8")


def to_text(record: Any, schema: int) -> str:
    """Return the content of a record's file: its schema first, lists of numbers on one line."""
    content = {"schema": schema, **to_json(record)}
    return with_short_lists(json.dumps(content, indent=1, ensure_ascii=False)) + "\n"


def with_short_lists(text: str) -> str:
    """Return indented JSON with each list of numbers on one line, not one line per number."""
    # The line break tells a list from brackets inside a string.
    return re.sub(r"\[\n([^][{}\"]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text)


def to_json(value: Any) -> Any:
    """Return a record, or a value inside a record, as a value that ``json.dumps`` accepts."""
    if dataclasses.is_dataclass(value):
        return {one.name: to_json(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[Record], value: Any) -> Record:
    """Return the record that parsed JSON holds.

    Integers are accepted as floats; nothing else is converted. The first alternative of a union
    that fits is taken. Keys with a default may be missing.

    Raises:
        RecordError: If the value is of another type, a key is missing or unknown, or the record's
            own checks raise ``ValueError``.
    """
    record: Record = _parsed(kind, value, "")
    return record


def _parsed(kind: Any, value: Any, place: str) -> Any:
    """Build ``kind`` (a dataclass, container, union, Literal or plain type) from parsed JSON."""
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _parsed_record(kind, value, place)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _parsed_union(kind, value, place)
    if origin is Literal and type(value) in map(type, arguments) and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        items = arguments
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            items = (arguments[0],) * len(value)
        if len(items) == len(value):
            pairs = enumerate(zip(items, value, strict=True))
            return tuple(_parsed(one, item, f"{place}[{index}]") for index, (one, item) in pairs)
    if origin in (dict, Mapping) and isinstance(value, dict):
        keys, items = arguments
        return {
            _parsed(keys, key, place): _parsed(items, item, _inside(place, key))
            for key, item in value.items()
        }
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    raise _error(place, f"{_shown(value)} found, {_noun(kind)} expected")


def _parsed_record(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise _error(place, f"{_shown(value)} found, {_noun(kind)} expected")
    types, fields = _types(kind), dataclasses.fields(kind)
    for key in value:
        if key not in types:
            near = difflib.get_close_matches(key, types, 1, cutoff=0)
            raise _error(place, f"unknown key {key!r}; the nearest known is {near[0]!r}")
    for one in fields:
        required = one.default is MISSING and one.default_factory is MISSING
        if required and one.name not in value:
            raise _error(place, f"key {one.name!r} is missing")
    content = {key: _parsed(types[key], item, _inside(place, key)) for key, item in value.items()}
    try:
        return kind(**content)
    except ValueError as error:
        raise _error(place, str(error)) from error


def _parsed_union(kind: Any, value: Any, place: str) -> Any:
    alternatives = get_args(kind)
    if value is None and NoneType in alternatives:
        return None
    others = [one for one in alternatives if one is not NoneType]
    if len(others) == 1:
        return _parsed(others[0], value, place)
    for one in others:
        try:
            return _parsed(one, value, place)
        except RecordError:
            continue
    raise _error(place, f"{_shown(value)} found, {_noun(kind)} expected")


@cache
def _types(kind: Any) -> dict[str, Any]:
    """Return the types of a record's fields by name."""
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in dataclasses.fields(kind)}


def _noun(kind: Any) -> str:
    """Return the name of a type for an error message."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(_noun, arguments))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        free = len(arguments) == 2 and arguments[1] is Ellipsis
        return "a list" if free else f"a list of {len(arguments)}"
    if origin in (dict, Mapping):
        return "an object"
    return _NOUNS.get(kind) or f"an object ({kind.__name__})"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _inside(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _error(place: str, message: str) -> RecordError:
    return RecordError(f"{place}: {message}" if place else message)
