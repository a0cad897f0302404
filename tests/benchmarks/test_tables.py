from __future__ import annotations

from benchmarks.report.tables import text_table


def test_columns_are_aligned() -> None:
    table = text_table(["file", "ms"], [["a.onnx", "1.25"], ["longer.tflite", "10.00"]])

    assert table.splitlines() == [
        "file              ms",
        "-------------  -----",
        "a.onnx          1.25",
        "longer.tflite  10.00",
    ]


def test_no_rows_leave_the_header() -> None:
    assert text_table(["file"], []).splitlines() == ["file", "----"]
