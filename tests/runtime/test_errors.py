"""Messages of other libraries are cut to one line."""

from __future__ import annotations

from runtime.errors import first_line


def test_first_line() -> None:
    assert first_line(ValueError("one. two.\nthree")) == "one. two"
    assert first_line(RuntimeError("\n  indented \n")) == "indented"
    assert first_line(KeyError()) == "KeyError"
