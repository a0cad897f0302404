"""Phones and boards: real ``adb`` and Debian's real ``adbd``, with QEMU as the phone's processor.

The phone and the board, a real ``sshd``, listen in a network namespace of their own. States that
this phone cannot be in are told by a fake ``adb``.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.bench import measure_times
from benchmarks.blocks import Recorder
from benchmarks.comparison import Plan
from benchmarks.devices import remote
from benchmarks.devices.adb import Adb
from benchmarks.devices.arm64_root import missing_root
from benchmarks.devices.catalogue import remote_device
from benchmarks.devices.device import Timing
from benchmarks.devices.remote import RemoteDevice
from benchmarks.devices.remote_bundle import write_bundle
from benchmarks.devices.remote_state import read_state
from benchmarks.devices.ssh import Ssh
from benchmarks.devices.timed_process import TimedProcess
from reslite.__main__ import main
from runtime.errors import UserError
from runtime.manifest import Artifact

_ADBD = shutil.which("adbd") or "/usr/sbin/adbd"
_TIMING = Timing((8, 8), 1, 1)
_SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
_PORTS, _SSH_PORT = (6655, 6657), 6659

# Besides TCP, adbd listens on a virtual machine's own sockets, which no namespace holds back: the
# kernel is told to refuse them (numbers of x86-64).
_NO_VSOCK = """
import ctypes, os, struct, sys
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, 41), (0x20, 0, 0, 16), (0x15, 0, 1, 40),
         (0x06, 0, 0, 0x50061), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in steps))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
program = Program(len(steps), ctypes.addressof(code))
call = ctypes.CDLL(None).prctl
assert call(38, 1, 0, 0, 0) == 0 and call(22, 2, ctypes.byref(program), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def _no_phone() -> str | None:
    if platform.system() != "Linux" or platform.machine() != "x86_64" or os.geteuid() != 0:
        return "needs root on Linux on x86-64, for a namespace"
    for program in ("adb", "ip", "nsenter", "unshare", _ADBD):
        if shutil.which(program) is None:
            return f"needs {program}: Debian's packages adb, adbd (backports), iproute2, util-linux"
    return missing_root()


MISSING = _no_phone()
needs_phone = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


class Phone:
    """One or two adbd in a network namespace, and an ``adb`` that runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self.small = folder / "small"
        for made in (self.folder, self.small, folder / "bin"):
            made.mkdir()
        mount = f"mount -t tmpfs -o size=4m none '{self.small}'"
        self._space = subprocess.Popen(
            ["unshare", "-n", "-m", "sh", "-c", f"ip link set lo up && {mount} && exec sleep 600"],
        )
        inside = (
            f"nsenter --net=/proc/{self._space.pid}/ns/net --mount=/proc/{self._space.pid}/ns/mnt"
        )
        adb = f"#!/bin/sh\nexport HOME='{folder}'\nexec {inside} {shutil.which('adb')} \"$@\"\n"
        self.path = folder / "bin"
        (self.path / "adb").write_text(adb)
        (self.path / "adb").chmod(0o755)
        self._inside = inside.split()
        self._daemons: list[subprocess.Popen[bytes]] = []
        _until(lambda: "lo" in self._run("ip", "-o", "link", "show", "up"))

    def switch_on(self, port: int) -> str:
        """Start an adbd, connect it and return its serial."""
        serial = f"127.0.0.1:{port}"
        command = [*self._inside, sys.executable, "-c", _NO_VSOCK, _ADBD]
        environment = {**os.environ, "ADBD_PORT": str(port)}
        self._daemons.append(
            subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        _until(lambda: "connected" in self.adb("connect", serial) and not Adb(serial).missing())
        return serial

    def board(self) -> None:
        """Start an sshd with keys of its own, which ``ssh board`` reaches, and no other."""
        folder = self.path.parent / "board"
        folder.mkdir()
        for name in ("host", "user"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(keygen, check=True)
        (folder / "sshd").write_text(
            f"Port {_SSH_PORT}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\n"
            f"AuthorizedKeysFile {folder / 'user.pub'}\nPermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\nStrictModes no\nUsePAM no\nPidFile none\n"
        )
        (folder / "ssh").write_text(
            f"Host board\n  IdentityFile {folder / 'user'}\n"
            f"Host *\n  HostName 127.0.0.1\n  Port {_SSH_PORT}\n  User root\n"
            f"  IdentitiesOnly yes\n  StrictHostKeyChecking no\n"
            f"  UserKnownHostsFile {folder / 'known'}\n  LogLevel ERROR\n"
        )
        inside = shlex.join(self._inside)
        ssh = f"#!/bin/sh\nexec {inside} {shutil.which('ssh')} -F '{folder / 'ssh'}' \"$@\"\n"
        (self.path / "ssh").write_text(ssh)
        (self.path / "ssh").chmod(0o755)
        start = (
            f"mount -t tmpfs none /run && mkdir /run/sshd && exec {_SSHD} -D -f {folder / 'sshd'}"
        )
        self._daemons.append(subprocess.Popen([*self._inside, "sh", "-c", start]))
        _until(lambda: Ssh("board").missing() is None)

    def adb(self, *arguments: str) -> str:
        return self._run(str(self.path / "adb"), *arguments)

    def close(self) -> None:
        self.adb("kill-server")
        for one in (*self._daemons, self._space):
            one.kill()
            one.wait()

    def _run(self, *command: str) -> str:
        whole = command if command[0].endswith("adb") else (*self._inside, *command)
        run = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=60)
        return run.stdout + run.stderr


def _until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    made = Phone(tmp_path_factory.mktemp("phone"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(made.path), prepend=os.pathsep)
        patch.setattr(Adb, "folder", str(made.folder))
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def serial(phone: Phone) -> str:
    return phone.switch_on(_PORTS[0])


@pytest.fixture
def device(serial: str) -> Iterator[RemoteDevice]:
    made = remote_device(f"android:{serial}")
    assert made is not None
    yield made
    made.close()


@pytest.fixture
def file(write_artifact: Callable[..., Artifact], tmp_path: Path) -> Path:
    return tmp_path / write_artifact(tmp_path, "tflite", "int8").file


@pytest.mark.slow
@needs_phone
def test_files_run_there_and_an_emulated_time_is_refused(
    device: RemoteDevice,
    phone: Phone,
    file: Path,
    write_artifact: Callable[..., Artifact],
) -> None:
    assert device.missing() is None
    onnx = file.with_name(write_artifact(file.parent, "onnx", "float32").file)
    for path, library in ((file, "LiteRT"), (onnx, "ONNX Runtime")):
        with device.opened(path, _TIMING) as timed:
            assert timed.runtime.startswith(library)
            assert "(emulated: its kernel runs on x86_64)" in timed.runtime
            assert (timed.size, timed.scale) == ((8, 8), 2)
            assert isinstance(timed, TimedProcess)
            assert TimedProcess.time_one(timed) > 0  # it does run
            with pytest.raises(UserError, match=r"is emulated, .* its time is no phone's"):
                timed.time_one()
            assert int(timed.finish()["peak_memory_bytes"]) > 10e6
    assert len(list(phone.folder.iterdir())) == 1  # pushed once
    device.close()
    assert not any(phone.folder.iterdir())


@needs_phone
def test_bench_refuses_an_emulated_phone_and_pushes_nothing(
    serial: str, phone: Phone, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(file), "--device", f"android:{serial}", "--no-store"]) == 2
    assert "not run (android:" in (said := capsys.readouterr().err)
    assert "is emulated, for its kernel runs on x86_64" in said
    assert not any(phone.folder.iterdir())


@pytest.mark.slow
@needs_phone
def test_what_is_measured_bears_the_other_machines_facts(
    device: RemoteDevice, phone: Phone, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the processor were real: what is tested is the way of a sample, and none is kept.
    monkeypatch.setattr(
        remote, "read_state", lambda text: replace(read_state(PIXEL), qemu=bool(text))
    )
    monkeypatch.setattr(remote, "write_bundle", lambda stream, emulated: write_bundle(stream, True))
    recorder = Recorder()

    not_run = measure_times([file], [device], recorder, plan=Plan(1, 2, 0), threads=1, size=(8, 8))

    assert not_run == []
    assert [one.role for one in recorder.measurements if one.samples].count("control") == 1
    for one in recorder.measurements:
        assert len(one.samples) == 2
        assert one.machine == "Google Pixel 8 (Google Tensor G3, Android 15, aarch64)"
        assert one.load is None  # this machine's does not tell
        assert one.facts["battery_percent"] == 83
        assert one.facts["thermal_state_after"] == "none"
    assert not any(phone.folder.iterdir())


@pytest.mark.slow
@needs_phone
def test_unplugged_in_the_middle(
    device: RemoteDevice, phone: Phone, serial: str, file: Path
) -> None:
    with device.opened(file, _TIMING) as timed:
        assert isinstance(timed, TimedProcess)
        assert any(phone.folder.iterdir())
        try:
            phone.adb("disconnect", serial)
            with pytest.raises(UserError, match=r"int8\.tflite: android:.* was lost meanwhile \("):
                TimedProcess.time_one(timed)
        finally:
            phone.adb("connect", serial)
    _until(lambda: not any(phone.folder.iterdir()))


@needs_phone
def test_killed_it_leaves_nothing_there(serial: str, phone: Phone, file: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from benchmarks.devices.adb import Adb\n"
        "from benchmarks.devices.device import Timing\n"
        "from benchmarks.devices.remote import RemoteDevice\n"
        "Adb.folder = sys.argv[1]\n"
        "with RemoteDevice(Adb(sys.argv[2])).opened(Path(sys.argv[3]), Timing((8, 8), 1, 1)):\n"
        "    print('open', flush=True); time.sleep(600)\n"
    )
    arguments = [str(phone.folder), serial, str(file)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert any(phone.folder.iterdir())
        process.send_signal(signal.SIGKILL)
    _until(lambda: not any(phone.folder.iterdir()))


@needs_phone
def test_no_space_leaves_nothing_there(
    serial: str, phone: Phone, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adb, "folder", str(phone.small))
    device = RemoteDevice(Adb(serial))
    with (
        pytest.raises(UserError, match=f"no space left in {phone.small}; delete something there"),
        device.opened(file, _TIMING),
    ):
        pass
    assert phone.adb("-s", serial, "shell", f"ls {phone.small}").strip() == ""


@needs_phone
def test_a_folder_that_is_not_there_is_told(
    serial: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adb, "folder", "/nowhere")
    device = RemoteDevice(Adb(serial))
    with pytest.raises(UserError, match="/nowhere"), device.opened(file, _TIMING):
        pass


@needs_phone
def test_two_phones_need_a_serial(serial: str, phone: Phone) -> None:
    other = phone.switch_on(_PORTS[1])
    try:
        told = Adb("").missing() or ""
        assert told.startswith("needs a serial")
        assert f"android:{serial}" in told
        assert f"android:{other}" in told
        assert (Adb("elsewhere").missing() or "").startswith("is not connected; connected: ")
        assert Adb(other).missing() is None
    finally:
        phone.adb("disconnect", other)


@pytest.mark.slow
@needs_phone
@pytest.mark.skipif(not Path(_SSHD).exists(), reason="needs sshd: apt-get install openssh-server")
def test_a_board_is_the_same_by_ssh(
    phone: Phone, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone.board()
    monkeypatch.setattr(Ssh, "folder", str(phone.folder))
    device = remote_device("ssh:board")
    assert device is not None
    assert device.missing() is None
    with device.opened(file, _TIMING) as timed:
        assert "(emulated: its kernel runs on x86_64)" in timed.runtime
        assert isinstance(timed, TimedProcess)
        assert TimedProcess.time_one(timed) > 0
        with pytest.raises(UserError, match=r"ssh:board is emulated"):
            timed.time_one()
    assert any(phone.folder.iterdir())
    device.close()
    assert not any(phone.folder.iterdir())

    # Without the key that the board knows, and without a question.
    told = Ssh("elsewhere").missing() or ""
    assert told.startswith("cannot be reached (")
    assert "Permission denied" in told
    assert told.endswith("'ssh elsewhere' must work without a password")
    with device.opened(file, _TIMING):
        assert device._folder is not None
        device._folder._keeper.kill()  # the connection, as when this machine loses its network
        _until(lambda: not any(phone.folder.iterdir()))
    device.close()


def test_a_host_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Ssh("").missing() or "").startswith(("needs a host", "needs ssh"))
    assert (Ssh("-oProxyCommand=x").missing() or "").startswith(("needs a host", "needs ssh"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (Ssh("board").missing() or "").startswith("needs ssh: apt-get install openssh-client")


@pytest.mark.parametrize(
    ("row", "serial", "told"),
    [
        ("", "A", "no phone is connected: plug one in and allow"),
        ("A\\tunauthorized", "A", "has not allowed this computer: unlock it and accept"),
        ("A\\toffline", "A", "does not answer: plug it in again"),
        ("A\\tno permissions (user in plugdev group); see [x]", "A", "udev rules"),
        ("A\\trecovery", "A", "is in state 'recovery'"),
        ("A\\tdevice\\nB\\tdevice", "", "needs a serial, .*android:A, android:B"),
    ],
)
def test_states_of_phones(
    row: str, serial: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "adb"
    fake.write_text(f"#!/bin/sh\nprintf 'List of devices attached\\n{row}\\n'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    device = RemoteDevice(Adb(serial))
    with pytest.raises(UserError, match=told):
        measure_times([tmp_path / "x.tflite"], [device], Recorder(), plan=Plan(1, 1, 0))


def test_without_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (Adb("A").missing() or "").startswith("needs adb: apt-get install adb")


PIXEL = """\
system Linux 6.1.99-android14 aarch64
arch aarch64
cpuinfo processor\t: 0
cpuinfo Features\t: fp asimd asimddp
cpuinfo CPU implementer\t: 0x41
cpuinfo CPU part\t: 0xd46
cpuinfo CPU part\t: 0xd4e
memory MemTotal:        7700000 kB
load_average 0.50
cores 9
available 9
governor sched_pixel
governor sched_pixel
zone 38500
zone -274000
zone 31000
ro.product.manufacturer Google
ro.product.model Pixel 8
ro.soc.manufacturer Google
ro.soc.model Tensor G3
ro.build.version.release 15
battery AC powered: false
battery USB powered: true
battery level: 83
battery temperature: 291
thermal Thermal Status: 0
"""


def test_a_phone_describes_itself() -> None:
    state = read_state(PIXEL)
    assert state.machine == "Google Pixel 8 (Google Tensor G3, Android 15, aarch64)"
    assert state.emulated is None
    assert not state.qemu
    assert state.facts == {
        "system": "Linux 6.1.99-android14 aarch64",
        "cores": 9,
        "available": 9,
        "load_average": 0.5,
        "memory_bytes": 7_700_000 * 1024,
        "governor": "sched_pixel",
        "hottest_celsius": 38.5,
        "battery_percent": 83,
        "charging": "USB powered",
        "battery_celsius": 29.1,
        "thermal_state": "none",
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (("arch aarch64", "arch x86_64"), "its kernel runs on x86_64"),
        (("CPU implementer\t: 0x41", "vendor_id\t: AuthenticAMD"), "names no Arm processor"),
        (("implementer\t: 0x41", "implementer\t: 0x00"), "names no Arm processor"),
        (("cores 9", "ro.boot.qemu 1"), "it is Android's emulator"),
        (("cores 9", "board linux,dummy-virt "), "its board is QEMU's"),
    ],
)
def test_emulators_are_known(changed: tuple[str, str], told: str) -> None:
    assert told in (read_state(PIXEL.replace(*changed)).emulated or "")


def test_nonsense_is_no_arm_processor() -> None:
    assert read_state("\x00\n???").emulated == "its kernel runs on unknown"
