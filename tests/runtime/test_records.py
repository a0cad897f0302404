"""Records survive their files, and JSON that does not fit is refused by place and expectation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from runtime.errors import UserError
from runtime.records import (
    RecordError,
    from_json,
    read_record,
    to_json,
    to_text,
    with_short_lists,
    write_record,
)


@dataclass(frozen=True)
class _Scale:
    value: float
    zero_point: int = 0

    def __post_init__(self) -> None:
        if self.value <= 0:
            raise ValueError(f"scale {self.value} is not positive")


@dataclass(frozen=True)
class _Table:
    name: str
    kind: Literal["float", "int"]
    scales: Mapping[str, _Scale]
    pairs: tuple[tuple[str, int], ...]
    gains: Mapping[Literal["a", "b"], float | tuple[float, ...]] = field(default_factory=dict)
    first: _Scale | None = None
    exact: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


_TABLE = _Table(
    name="é",
    kind="int",
    scales={"x": _Scale(0.5, 3), "y": _Scale(1.0)},
    pairs=(("one", 1), ("two", 2)),
    gains={"a": 2.0, "b": (1.0, 0.25)},
    first=_Scale(2.0),
    exact=True,
    notes={"any": [None, {"thing": "[1]"}]},
)
_JSON = {
    "name": "é",
    "kind": "int",
    "scales": {"x": {"value": 0.5, "zero_point": 3}, "y": {"value": 1.0, "zero_point": 0}},
    "pairs": [["one", 1], ["two", 2]],
    "gains": {"a": 2.0, "b": [1.0, 0.25]},
    "first": {"value": 2.0, "zero_point": 0},
    "exact": True,
    "notes": {"any": [None, {"thing": "[1]"}]},
}


def test_records_become_json_and_json_becomes_records() -> None:
    assert to_json(_TABLE) == _JSON
    assert from_json(_Table, json.loads(json.dumps(_JSON))) == _TABLE


def test_keys_with_a_default_may_be_missing_and_integers_pass_for_floats() -> None:
    few = {"name": "n", "kind": "float", "scales": {"x": {"value": 2}}, "pairs": []}

    table = from_json(_Table, few)

    assert table == _Table("n", "float", {"x": _Scale(2.0)}, ())
    assert type(table.scales["x"].value) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name: 3 found, a string expected"),
        ({"name": None}, "name: null found, a string expected"),
        ({"exact": 1}, "exact: 1 found, true or false expected"),
        ({"kind": "double"}, "kind: \"double\" found, 'float' or 'int' expected"),
        ({"scales": []}, "scales: [] found, an object expected"),
        ({"scales": {"x": {"value": "2"}}}, 'scales.x.value: "2" found, a number expected'),
        ({"scales": {"x": {"value": True}}}, "scales.x.value: true found, a number expected"),
        ({"scales": {"x": {}}}, "scales.x: key 'value' is missing"),
        ({"scales": {"x": {"value": -1}}}, "scales.x: scale -1.0 is not positive"),
        ({"scales": {"x": 1}}, "scales.x: 1 found, an object (_Scale) expected"),
        (
            {"scales": {"x": {"value": 1, "zero_point": 2.5}}},
            "scales.x.zero_point: 2.5 found, an integer expected",
        ),
        ({"pairs": {}}, "pairs: {} found, a list expected"),
        ({"pairs": [["a", 1], ["b"]]}, 'pairs[1]: ["b"] found, a list of 2 expected'),
        ({"pairs": [["a", "1"]]}, 'pairs[0][1]: "1" found, an integer expected'),
        ({"gains": {"c": 1}}, "gains: \"c\" found, 'a' or 'b' expected"),
        ({"gains": {"a": [1, "x"]}}, 'gains.a: [1, "x"] found, a number or a list expected'),
        ({"first": {"value": "x"}}, 'first.value: "x" found, a number expected'),
        ({"exakt": True}, "unknown key 'exakt'; the nearest known is 'exact'"),
        ({"scales": {"x": {"valeu": 1}}}, "scales.x: unknown key 'valeu'; the nearest known is 'v"),
    ],
)
def test_what_does_not_fit_is_named_by_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError) as caught:
        from_json(_Table, {**_JSON, **change})

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_a_record_is_an_object(value: Any) -> None:
    with pytest.raises(RecordError, match=r"found, an object \(_Table\) expected"):
        from_json(_Table, value)


def test_long_values_are_cut_in_errors() -> None:
    with pytest.raises(RecordError) as caught:
        from_json(_Table, {**_JSON, "name": list(range(1000))})
    assert len(str(caught.value)) < 100


def test_a_file_holds_its_schema_and_lists_of_numbers_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "table.json"

    write_record(path, _TABLE, 7)

    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"schema": 7, **_JSON}
    assert text == to_text(_TABLE, 7)
    assert text.startswith('{\n "schema": 7,\n "name": "é",\n')
    assert '  "b": [1.0, 0.25]\n' in text
    assert read_record(path, _Table, 7, "make it anew") == _TABLE


def test_short_lists_leave_strings_objects_and_empty_lists_as_they_are() -> None:
    value = {"a": [1, -2.5e-07, None], "b": ["[\n 1]", "x"], "c": [{"d": []}, [[3, 4], []]]}

    text = with_short_lists(json.dumps(value, indent=1))

    assert json.loads(text) == value
    assert "[1, -2.5e-07, null]" in text
    assert "[3, 4]" in text


def test_a_file_without_a_schema_is_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(_JSON))

    assert read_record(path, _Table, 1, "make it anew") == _TABLE
    with pytest.raises(UserError, match=r"schema 1 found, 2 expected .* of reslite; make it anew$"):
        read_record(path, _Table, 2, "make it anew")


def test_a_newer_schema_asks_for_a_newer_reslite(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"schema": 3, "of the future": []}))

    with pytest.raises(UserError) as caught:
        read_record(path, _Table, 2, "make it anew")

    assert str(caught.value) == (
        f"{path}: schema 3 found, 2 expected by this version of reslite; update reslite or make it "
        "anew"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"name": "n"}', b"\xff"])
def test_damaged_files_are_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(content)

    with pytest.raises(UserError) as caught:
        read_record(path, _Table, 1, "make it anew")

    assert str(caught.value).startswith(f"{path}: damaged (")
    assert str(caught.value).endswith("; make it anew")


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "none.json", _Table, 1, "make it anew")
    with pytest.raises(UserError, match=r"cannot be read .*; make it anew"):
        read_record(tmp_path, _Table, 1, "make it anew")
