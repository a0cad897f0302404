"""What another machine is and the state it is in, as its own shell tells.

A time is a phone's only if the phone's processor ran the file. What shows an emulator is looked
for: another processor's kernel, Android's emulator, QEMU's board, a processor that Arm's list does
not name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

QEMU = "qemu-aarch64"

_PROPERTIES = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.soc.manufacturer",
    "ro.soc.model",
    "ro.build.version.release",
    "ro.build.version.sdk",
    "ro.hardware",
    "ro.kernel.qemu",
    "ro.boot.qemu",
)
_CPU = "/sys/devices/system/cpu"
PROBE = f"""\
say() {{ [ -n "$2" ] && echo "$1 $2"; }}
say system "$(uname -s) $(uname -r) $(uname -m)"
say arch "$(cat /proc/sys/kernel/arch 2>/dev/null || uname -m)"
say board "$(tr '\\0' ' ' </proc/device-tree/compatible 2>/dev/null)"
say board_model "$(tr '\\0' ' ' </proc/device-tree/model 2>/dev/null)"
sed 's/^/cpuinfo /' /proc/cpuinfo
say memory "$(grep MemTotal /proc/meminfo)"
say load_average "$(cut -d ' ' -f 1 /proc/loadavg 2>/dev/null)"
say cores "$(grep -c '^processor' /proc/cpuinfo)"
say available "$(nproc)"
say qemu "$(command -v {QEMU})"
for cpu in {_CPU}/cpu[0-9]*; do
  say governor "$(cat $cpu/cpufreq/scaling_governor 2>/dev/null)"
done
for zone in /sys/class/thermal/thermal_zone*; do
  say zone "$(cat $zone/temp 2>/dev/null)"
done
if command -v getprop >/dev/null; then
  for name in {" ".join(_PROPERTIES)}; do say "$name" "$(getprop $name)"; done
fi
if command -v dumpsys >/dev/null; then
  dumpsys battery 2>/dev/null | sed 's/^ */battery /'
  say thermal "$(dumpsys thermalservice 2>/dev/null | grep -m 1 'Thermal Status')"
fi
true"""
"""Prints a line for each fact that the machine has, beginning with the fact's name."""

_ARM = ("aarch64", "arm64")
_HOTTEST = 150.0  # degrees; more is another unit, or a sensor that is not there
_STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's thermal states, of which all but the first slow the processor down."""


@dataclass(frozen=True)
class State:
    """What a machine tells of itself.

    Attributes:
        machine: Model, system on chip and Android's version, or the board, in a line.
        emulated: What shows that no Arm processor runs there, or None.
        qemu: Whether ``qemu-aarch64`` is there.
        facts: Facts that times depend on: governor, battery, temperature and the like; what the
            machine does not tell is not there.
    """

    machine: str
    emulated: str | None
    qemu: bool
    facts: Mapping[str, str | int | float] = field(default_factory=dict)


def read_state(printed: str) -> State:
    """Return the state from what ``PROBE`` printed."""
    lines = [line.split(" ", 1) for line in printed.splitlines() if " " in line]
    many: dict[str, list[str]] = {}
    for name, value in lines:
        many.setdefault(name, []).append(value.strip())
    one = {name: values[0] for name, values in many.items() if values[0]}
    cpu = _fields(many.get("cpuinfo", []))
    return State(_machine(one, cpu), _emulated(one, cpu), "qemu" in one, _facts(one, many))


def _machine(one: Mapping[str, str], cpu: Mapping[str, str]) -> str:
    arch = one.get("arch", "an unknown processor")
    if "ro.product.model" in one:
        chip = f"{one.get('ro.soc.manufacturer', '')} {one.get('ro.soc.model', '')}".strip()
        maker = one.get("ro.product.manufacturer", "")
        version = one.get("ro.build.version.release", "unknown")
        inside = ", ".join(filter(None, [chip, f"Android {version}", arch]))
        return f"{maker} {one['ro.product.model']}".strip() + f" ({inside})"
    model = one.get("board_model") or cpu.get("model name") or cpu.get("Hardware")
    parts = sorted(set(cpu.get("CPU part", "").split()))
    return f"{model or 'a board'} ({', '.join([arch, *parts])})"


def _emulated(one: Mapping[str, str], cpu: Mapping[str, str]) -> str | None:
    arch = one.get("arch", "unknown")
    if arch not in _ARM:
        return f"its kernel runs on {arch}"
    if "CPU implementer" not in cpu or cpu["CPU implementer"] == "0x00":
        return "/proc/cpuinfo names no Arm processor"
    if "1" in (one.get("ro.kernel.qemu"), one.get("ro.boot.qemu")):
        return "it is Android's emulator"
    if "linux,dummy-virt" in one.get("board", ""):
        return "its board is QEMU's"
    return None


def _facts(
    one: Mapping[str, str], many: Mapping[str, list[str]]
) -> Mapping[str, str | int | float]:
    found: dict[str, str | int | float] = {}
    if "system" in one:
        found["system"] = one["system"]
    for name, kind in (("cores", int), ("available", int), ("load_average", float)):
        if (number := _number(one.get(name, ""))) is not None:
            found[name] = kind(number)
    if (memory := _number(one.get("memory", "").removeprefix("MemTotal:"))) is not None:
        found["memory_bytes"] = int(memory) * 1024
    if "governor" in many:
        found["governor"] = ", ".join(sorted(set(many["governor"])))
    degrees = [_number(value) for value in many.get("zone", [])]
    plausible = [one / 1000 for one in degrees if one is not None and 0 < one / 1000 < _HOTTEST]
    if plausible:
        found["hottest_celsius"] = max(plausible)
    battery = _fields(many.get("battery", []))
    if (level := _number(battery.get("level", ""))) is not None:
        found["battery_percent"] = int(level)
    powered = [name for name, value in battery.items() if "powered" in name and value == "true"]
    if battery:
        found["charging"] = ", ".join(powered) or "no"
    if (heat := _number(battery.get("temperature", ""))) is not None:
        found["battery_celsius"] = heat / 10
    if (status := _number(one.get("thermal", "").rpartition(":")[2])) is not None:
        number = int(status)
        found["thermal_state"] = _STATUSES[number] if number < len(_STATUSES) else str(number)
    return found


def _fields(lines: list[str]) -> dict[str, str]:
    """Return "name: value" lines; the values of a name that comes again are joined."""
    found: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), []).append(value.strip())
    return {name: " ".join(dict.fromkeys(values)) for name, values in found.items()}


def _number(text: str) -> float | None:
    words = text.split()
    try:
        return float(words[0]) if words else None
    except ValueError:
        return None
