"""Estimates of an int8 .tflite on an Ethos-U NPU by Arm's compiler Vela, without a board.

Vela decides which operators run on the NPU, schedules them and estimates cycles and memory traffic
of each. These are the vendor's estimates, not measurements; the estimated time excludes operators
that fall back to the CPU. Figures depend on clock and memories, so that every figure names the
system configuration and the memory mode (sections of Vela's ``Arm/vela.ini``).
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.devices.device import Device, Execution, Subject, Takes
from runtime.errors import UserError
from runtime.session import FloatPicture

LABEL = "estimated by the vendor's compiler"

_CONFIG = "Arm/vela.ini"
_TRAFFIC = re.compile(r"(.+?)(?:FeatureMap|Weights|Scales)_(?:read|write)$")


@dataclass(frozen=True)
class Target:
    """An NPU and the system around it.

    Attributes:
        accelerator: Vela's name of the NPU and its MACs per cycle, for example ``ethos-u65-256``.
        system: Section ``System_Config`` of Vela's configuration: clock and memories.
        memory: Section ``Memory_Mode`` of Vela's configuration: the use of each memory.
    """

    accelerator: str
    system: str
    memory: str


TARGETS: Mapping[str, Target] = {
    target.accelerator: target
    for target in (
        Target("ethos-u55-256", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
        Target("ethos-u65-256", "Ethos_U65_Client_Server", "Dedicated_Sram_384KB"),
        Target("ethos-u65-512", "Ethos_U65_Client_Server", "Dedicated_Sram_384KB"),
        Target("ethos-u85-1024", "Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
    )
}
"""The reported NPUs, each in the system that Vela assumes by default."""


@dataclass(frozen=True)
class NpuLayer:
    """An operator of the file.

    Attributes:
        operator: Vela's name of the operator, for example ``Conv2D``.
        name: Name of the output tensor.
        on_npu: Whether the operator runs on the NPU; otherwise the CPU runs it.
        cycles: Cycles of the NPU's clock, memory access included.
        multadds: Multiply-accumulates as the NPU executes them.
        bytes: Bytes read and written in each memory, for example ``{"Sram": 6144, "Dram": 27648}``.
    """

    operator: str
    name: str
    on_npu: bool
    cycles: int
    multadds: int
    bytes: dict[str, int]


@dataclass(frozen=True)
class NpuEstimate:
    """The estimate of one file on one NPU.

    Attributes:
        file: Name of the .tflite.
        target: The NPU and the system that Vela compiled for.
        size: Height and width of the input.
        milliseconds: Estimated time of one inference, without the operators on the CPU.
        cycles: Cycles of the NPU's clock.
        clock_hz: The NPU's clock.
        multadds: Multiply-accumulates of the NPU.
        sram_bytes: On-chip memory needed.
        layers: The operators in the order they run.
        compiler: Vela and its version.
        label: Kind of the figures, always shown with them.
    """

    file: str
    target: Target
    size: tuple[int, int]
    milliseconds: float
    cycles: int
    clock_hz: float
    multadds: int
    sram_bytes: int
    layers: tuple[NpuLayer, ...]
    compiler: str
    label: str = LABEL

    @property
    def npu_operators(self) -> dict[str, int]:
        """How often each operator runs on the NPU."""
        return _histogram([layer for layer in self.layers if layer.on_npu])

    @property
    def cpu_operators(self) -> dict[str, int]:
        """How often each operator falls back to the CPU, whose time is not estimated."""
        return _histogram([layer for layer in self.layers if not layer.on_npu])


def target_named(accelerator: str) -> Target:
    """Return the target with the accelerator of that name.

    Raises:
        UserError: If there is no such target.
    """
    if accelerator not in TARGETS:
        raise UserError(f"{accelerator}: no such NPU; choose one of {', '.join(TARGETS)}")
    return TARGETS[accelerator]


def estimate(path: Path, target: Target | str) -> NpuEstimate:
    """Compile an int8 .tflite of fixed size with Vela and read its estimates.

    Args:
        path: The file; the ``ethos-u`` profile exports files that run entirely on the NPU.
        target: The NPU and its system, or a name in ``TARGETS``.

    Raises:
        UserError: If Vela is not installed, the file's size is not fixed, the file is not a TFLite
            file, or Vela cannot compile it.
    """
    target = target_named(target) if isinstance(target, str) else target
    compiler = _compiler()
    size = _fixed_size(path)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        _compile(path, target, output)
        (summary,) = _rows(next(output.glob("*_summary_*.csv")).read_text(encoding="utf-8"))
        debug = _tables(output / f"{path.stem}_debug.xml")
        per_layer = output / f"{path.stem}_per-layer.csv"
        places = [row["Target"] for row in _rows(per_layer.read_text(encoding="utf-8"))]
    if "NPU" not in places:
        raise UserError(
            f"{path.name}: none of its operators can run on {target.accelerator}; export it as int8"
        )
    return NpuEstimate(
        file=path.name,
        target=target,
        size=size,
        milliseconds=float(summary["inference_time"]) * 1000,
        cycles=int(float(summary["cycles_total"])),
        clock_hz=float(summary["core_clock"]),
        multadds=int(float(summary["nn_macs"])),
        sram_bytes=int(float(summary["sram_memory_used"]) * 1024),
        layers=_layers(debug, places),
        compiler=compiler,
    )


class EthosU(Device):
    """An Arm NPU, estimated."""

    evidence = "estimated"
    unit = "ms"
    takes = Takes({"tflite": ("int8",)}, fixed_size=True)

    def __init__(self, target: Target) -> None:
        self.target, self.name = target, target.accelerator
        self.title = f"Ethos-U ({target.accelerator.removeprefix('ethos-')})"

    def missing(self) -> str | None:
        """Return that Vela is missing, or None."""
        if find_spec("ethosu") is None:
            return "needs Arm's compiler Vela: pip install 'reslite[npu]'"
        return None

    def versions(self) -> Mapping[str, str]:
        """Return Vela's version."""
        return {"ethos-u-vela": importlib.metadata.version("ethos-u-vela")}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Estimate one inference; the pictures are not used."""
        found = estimate(subject.path, self.target)
        return Execution(
            f"{found.compiler}, {self.target.system}, {self.target.memory}",
            None,
            self.versions(),
            fallbacks=found.cpu_operators,
            facts={
                "size": f"{found.size[0]}×{found.size[1]}",
                "ms": found.milliseconds,
                "cycles": found.cycles,
                "MultAdds": found.multadds,
                "SRAM bytes": found.sram_bytes,
            },
        )


_Rows = list[dict[str, str]]


def _compiler() -> str:
    try:
        return f"Vela {importlib.metadata.version('ethos-u-vela')}"
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "estimating an NPU needs Arm's compiler Vela; run pip install 'reslite[npu]'"
        ) from error


def _compile(path: Path, target: Target, output: Path) -> None:
    """Run Vela into the folder ``output``."""
    command = [
        *(sys.executable, "-m", "ethosu.vela"),
        *("--accelerator-config", target.accelerator),
        *("--config", _CONFIG),
        *("--system-config", target.system),
        *("--memory-mode", target.memory),
        *("--output-dir", str(output)),
        "--verbose-performance",
        "--enable-debug-db",
        str(path.resolve()),
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=output, check=False)
    if run.returncode:
        said = (run.stderr or run.stdout).strip().splitlines()
        raise UserError(
            f"{path.name}: Vela cannot compile it for {target.accelerator} "
            f"({said[-1] if said else 'no message'}); is it an int8 file of the ethos-u profile?"
        )


def _layers(debug: Mapping[str, _Rows], places: list[str]) -> tuple[NpuLayer, ...]:
    """Join the rows of Vela's operations into one row for each operator of the file."""
    traffic = {row["id"]: _bytes(row) for row in debug["perf_debug"]}
    sources = {row["id"]: row["operator"] for row in debug["source"]}
    layers: dict[str, NpuLayer] = {}
    for row, place in zip(debug["perf"], places, strict=True):
        # Vela splits operators and adds some; added operators get rows under their own id.
        source = row["source_id"] if row["source_id"] in sources else f"added {row['id']}"
        before = layers.get(source)
        moved = Counter(before.bytes if before else {})
        moved.update(traffic.get(row["id"], {}))
        layers[source] = NpuLayer(
            operator=sources.get(source, row["operator"]),
            name=row["name"],
            on_npu=place == "NPU" and (before is None or before.on_npu),
            cycles=int(row["op_cycles"]) + (before.cycles if before else 0),
            multadds=int(row["mac_count"]) + (before.multadds if before else 0),
            bytes=dict(moved),
        )
    return tuple(layers.values())


def _bytes(row: Mapping[str, str]) -> dict[str, int]:
    moved: Counter[str] = Counter()
    for column, value in row.items():
        match = _TRAFFIC.match(column)
        if match is not None and value:
            moved[match[1]] += int(value)
    return {memory: count for memory, count in moved.items() if count}


def _tables(path: Path) -> dict[str, _Rows]:
    root = ElementTree.parse(path).getroot()
    return {
        table.get("name", ""): _rows((table.text or "").strip()) for table in root.iter("table")
    }


def _rows(text: str) -> _Rows:
    return list(csv.DictReader(io.StringIO(text)))


def _fixed_size(path: Path) -> tuple[int, int]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); export it first") from error
    if content[4:8] != b"TFL3":
        raise UserError(f"{path}: not a TFLite file; Vela compiles int8 .tflite files")
    from ai_edge_litert import schema_py_generated as schema

    try:
        graph = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0]
        tensor = graph.tensors[graph.inputs[0]]
    except Exception as error:  # damaged offsets raise arbitrary exceptions
        raise UserError(f"{path.name}: damaged ({error}); export it again") from error
    if tensor.shapeSignature is not None and -1 in list(tensor.shapeSignature):
        raise UserError(
            f"{path.name}: takes pictures of any size, and Vela compiles fixed sizes only; export "
            "it with --size and --profile ethos-u"
        )
    return int(tensor.shape[1]), int(tensor.shape[2])


def _histogram(layers: list[NpuLayer]) -> dict[str, int]:
    return dict(sorted(Counter(layer.operator for layer in layers).items()))
