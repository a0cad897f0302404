"""Vela, for real, on int8 files of the tiny network."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.devices.ethos_u import (
    LABEL,
    TARGETS,
    NpuEstimate,
    Target,
    _bytes,
    _layers,
    estimate,
    target_named,
)
from benchmarks.report.npu_layers import estimate_table
from runtime.errors import UserError
from runtime.manifest import Artifact

_U65 = TARGETS["ethos-u65-256"]


@pytest.fixture(scope="module")
def on_u65(
    write_artifact: Callable[..., Artifact], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, NpuEstimate]:
    """The file of the ethos-u profile and its estimate."""
    folder = tmp_path_factory.mktemp("npu")
    artifact = write_artifact(folder, "tflite", "int8", size=(16, 24), profile="ethos-u")
    return artifact, estimate(folder / artifact.file, _U65)


def test_file_of_the_ethos_profile_runs_whole_on_the_npu(
    on_u65: tuple[Artifact, NpuEstimate],
) -> None:
    artifact, found = on_u65

    assert found.cpu_operators == {}
    # Vela's names; it needs no operator for a concatenation that it writes in place.
    names = {"Conv2D": "CONV_2D", "Add": "ADD", "TransposeConv2D": "TRANSPOSE_CONV"}
    assert {name: found.npu_operators[name] for name in names} == {
        name: artifact.operators[theirs] for name, theirs in names.items()
    }
    assert found.size == (16, 24)


@pytest.mark.parametrize("accelerator", ["ethos-u55-256", "ethos-u85-1024"])
def test_a_network_for_3x_runs_whole_on_the_npu_too(
    accelerator: str,
    tiny_x3: Any,
    write_artifact: Callable[..., Artifact],
    tmp_path: Path,
) -> None:
    # Transposed convolutions of stride 3 would fall to the CPU, as depth-to-space does.
    artifact = write_artifact(
        tmp_path,
        "tflite",
        "int8",
        graph=tiny_x3.graph,
        table=tiny_x3.table,
        size=(16, 24),
        profile="ethos-u",
    )

    assert not {"DEPTH_TO_SPACE", "TRANSPOSE_CONV"} & set(artifact.operators)
    assert estimate(tmp_path / artifact.file, accelerator).cpu_operators == {}


def test_figures_belong_together(on_u65: tuple[Artifact, NpuEstimate], tiny: object) -> None:
    _, found = on_u65

    assert found.clock_hz == 1e9  # Ethos_U65_Client_Server in Vela's configuration.
    assert found.milliseconds == pytest.approx(1000 * found.cycles / found.clock_hz)
    # Vela's own totals are those of its layers.
    assert sum(layer.multadds for layer in found.layers) == found.multadds
    assert found.cycles <= sum(layer.cycles for layer in found.layers)
    moved: Counter[str] = Counter()
    for layer in found.layers:
        moved.update(layer.bytes)
    assert moved["Sram"] > 0
    assert moved["Dram"] > 0
    assert found.sram_bytes <= 384 * 1024  # The memory mode's SRAM.


def test_estimate_names_its_system(on_u65: tuple[Artifact, NpuEstimate]) -> None:
    _, found = on_u65

    text = estimate_table(found)

    assert found.label == LABEL == "estimated by the vendor's compiler"
    for part in (LABEL, "ethos-u65-256", *(_U65.system, _U65.memory), found.compiler, "Conv2D"):
        assert part in text
    assert found.compiler == f"Vela {importlib.metadata.version('ethos-u-vela')}"
    assert "not in the estimate" not in text


def test_depth_to_space_falls_to_the_cpu(
    write_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    artifact = write_artifact(tmp_path, "tflite", "int8", size=(16, 16))

    found = estimate(tmp_path / artifact.file, "ethos-u55-256")

    # One for each group of the convolution before the shuffle.
    assert found.cpu_operators == {"DepthToSpace": 2}
    assert found.target.system == "Ethos_U55_High_End_Embedded"
    assert found.clock_hz == 500e6
    assert [layer.cycles for layer in found.layers if not layer.on_npu] == [0, 0]
    assert "2 on the CPU, whose time is not in the estimate" in estimate_table(found)


def test_other_memories_give_other_figures(
    on_u65: tuple[Artifact, NpuEstimate],
    write_artifact: Callable[..., Artifact],
    tmp_path: Path,
) -> None:
    artifact = write_artifact(tmp_path, "tflite", "int8", size=(16, 24), profile="ethos-u")
    slower = Target("ethos-u65-256", "Ethos_U65_Embedded", "Shared_Sram")

    found = estimate(tmp_path / artifact.file, slower)

    assert found.clock_hz == 500e6
    assert found.milliseconds > on_u65[1].milliseconds
    assert "Dram" not in {memory for layer in found.layers for memory in layer.bytes}


def test_file_of_free_size_is_refused(
    write_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    artifact = write_artifact(tmp_path, "tflite", "int8")

    with pytest.raises(UserError, match=r"any size, .* export it with --size"):
        estimate(tmp_path / artifact.file, _U65)


def test_float_file_is_refused(write_artifact: Callable[..., Artifact], tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path, "tflite", "float32", size=(16, 16))

    with pytest.raises(
        UserError, match="none of its operators can run on ethos-u65-256; export it as int8"
    ):
        estimate(tmp_path / artifact.file, _U65)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(b"nonsense")

    with pytest.raises(UserError, match="not a TFLite file"):
        estimate(tmp_path / "x.tflite", _U65)
    with pytest.raises(UserError, match="cannot be read"):
        estimate(tmp_path / "none.tflite", _U65)


def test_damaged_file_is_refused(write_artifact: Callable[..., Artifact], tmp_path: Path) -> None:
    path = tmp_path / write_artifact(tmp_path, "tflite", "int8", size=(16, 16)).file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(UserError, match="tiny_x2_int8"):
        estimate(path, _U65)


def test_unknown_npu_is_refused() -> None:
    with pytest.raises(UserError, match="ethos-u99: no such NPU; choose one of ethos-u55-256"):
        target_named("ethos-u99")


def test_missing_compiler_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)

    with pytest.raises(UserError, match=r"pip install 'reslite\[npu\]'"):
        estimate(tmp_path / "x.tflite", _U65)


def test_operations_of_one_operator_are_joined() -> None:
    def operation(id: str, source: str, operator: str, cycles: str) -> dict[str, str]:
        return {
            "id": id,
            "source_id": source,
            "operator": operator,
            "name": f"out{id}",
            "op_cycles": cycles,
            "mac_count": "7",
        }

    debug = {
        "source": [{"id": "1", "operator": "Conv2D"}],
        "perf": [
            operation("10", "1", "Conv2D", "100"),
            operation("11", "1", "Relu", "20"),
            operation("12", "", "MemoryCopy", "3"),
        ],
        "perf_debug": [
            {"id": "10", "SramFeatureMap_read": "5", "SramWeights_write": "1", "Sram_ac": "99"},
            {"id": "11", "SramFeatureMap_read": "2", "DramScales_read": "4"},
        ],
    }

    conv, copy = _layers(debug, ["NPU", "NPU", "NPU"])

    assert (conv.operator, conv.cycles, conv.multadds) == ("Conv2D", 120, 14)
    assert conv.bytes == {"Sram": 8, "Dram": 4}
    assert (copy.operator, copy.cycles, copy.bytes) == ("MemoryCopy", 3, {})


def test_traffic_is_summed_by_memory() -> None:
    row = {"OffChipFlashWeights_read": "3", "Sram_read_efficiency": "0.5", "SramWeights_read": ""}

    assert _bytes(row) == {"OffChipFlash": 3}
