"""The way to an Android phone: Google's ``adb``, by cable or network, always with a serial."""

from __future__ import annotations

import shutil
import subprocess

from benchmarks.devices.transport import Transport, answer_of

_LIST_SECONDS = 30.0
_USB_DEBUGGING = "Settings, Developer options, USB debugging"
_ACCEPT = "unlock it and accept the question on its screen"
_STATES = {
    "unauthorized": f"has not allowed this computer: {_ACCEPT}",
    "authorizing": f"is still being asked: {_ACCEPT}",
    "offline": "does not answer: plug it in again, or 'adb reconnect offline'",
    "no permissions": "may not be opened by this user: see udev rules for adb (Debian: "
    "apt-get install android-sdk-platform-tools-common)",
}


class Adb(Transport):
    """A phone by its serial, as ``adb devices`` lists it.

    Args:
        serial: The serial; if empty, ``missing`` tells the serials that there are.
    """

    folder = "/data/local/tmp"

    def __init__(self, serial: str) -> None:
        self.serial = serial
        self.name = f"android:{serial}"

    def missing(self) -> str | None:
        """Return that adb, the phone or its consent is missing, or None."""
        if shutil.which("adb") is None:
            return "needs adb: apt-get install adb (Debian), or Android's platform tools on PATH"
        try:
            run = answer_of(["adb", "devices"], _LIST_SECONDS)
        except subprocess.TimeoutExpired:
            return f"adb gives no answer within {_LIST_SECONDS:g} s: adb kill-server"
        if run.returncode:
            lines = run.stderr.strip().splitlines()
            return f"adb fails ({lines[-1] if lines else f'code {run.returncode}'})"
        states = states_of(run.stdout)
        if not states:
            return f"no phone is connected: plug one in and allow {_USB_DEBUGGING}"
        if self.serial not in states:
            named = ", ".join(f"android:{serial}" for serial in states)
            if not self.serial:
                return f"needs a serial, for example one of these: {named}"
            return f"is not connected; connected: {named}"
        state = states[self.serial]
        if state == "device":
            return None
        told = next((text for start, text in _STATES.items() if state.startswith(start)), None)
        return told or f"is in state '{state}': start Android and allow {_USB_DEBUGGING}"

    def command(self, line: str) -> list[str]:
        """Return ``adb -s SERIAL shell`` without a terminal."""
        return ["adb", "-s", self.serial, "shell", "-T", line]


def states_of(listed: str) -> dict[str, str]:
    """Return the state of each phone by its serial, as ``adb devices`` prints them."""
    _, _, rows = listed.partition("List of devices attached")
    pairs = (line.split("\t", 1) for line in rows.splitlines() if "\t" in line)
    return {serial: state.strip() for serial, state in pairs}
