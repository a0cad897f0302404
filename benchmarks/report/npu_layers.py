"""The estimate of a file on an NPU as text, operator by operator."""

from __future__ import annotations

from benchmarks.devices.ethos_u import NpuEstimate
from benchmarks.report.tables import text_table


def estimate_table(found: NpuEstimate) -> str:
    """Return an estimate as text: a summary, and a line for each operator."""
    target = found.target
    left = sum(found.cpu_operators.values())
    header = ["operator", "on", "cycles", "share", "MultAdds", "bytes moved", "output"]
    rows = [
        [
            layer.operator,
            "NPU" if layer.on_npu else "CPU",
            f"{layer.cycles:,}",
            f"{layer.cycles / max(found.cycles, 1):.1%}",
            f"{layer.multadds:,}",
            " + ".join(f"{count:,} {memory}" for memory, count in layer.bytes.items()),
            layer.name,
        ]
        for layer in found.layers
    ]
    return "\n".join(
        [
            f"{found.file} at {found.size[0]}×{found.size[1]} on {target.accelerator} "
            f"({target.system}, {target.memory}): {found.milliseconds:.3f} ms, {found.label} "
            f"({found.compiler})",
            f"{sum(found.npu_operators.values())} operators on the NPU, {left} on the CPU"
            + (", whose time is not in the estimate" if left else ""),
            text_table(header, rows),
        ]
    )
