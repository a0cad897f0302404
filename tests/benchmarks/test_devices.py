import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from benchmarks.devices.catalogue import DEVICES
from benchmarks.devices.device import Device, Evidence, Subject
from benchmarks.devices.isolated import execute_isolated
from runtime.errors import UserError
from runtime.manifest import Artifact, TensorInfo

CATALOGUE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from benchmarks.devices.device import Device, Execution, Takes
from runtime.errors import UserError

class Fake(Device):
    title = "Fake"
    takes = Takes({"tflite": ("float32",)})
    time_limit = 60.0
    def missing(self):
        return None
    def versions(self):
        return {"fake": "1"}

class Doubling(Fake):
    name = "doubling"
    def execute(self, subject, pictures):
        outputs = tuple(picture * 2 for picture in pictures)
        return Execution("fake 1", outputs, self.versions(), {"Split": 2}, {"instructions": 5})

class Compiling(Fake):
    name = "compiling"
    evidence = "compiled"
    def execute(self, subject, pictures):
        return Execution("fake 1", None, self.versions(), None, {"partitions": 1})

class Refusing(Fake):
    name = "refusing"
    def execute(self, subject, pictures):
        raise UserError("Resize is not taken")

class Failing(Fake):
    name = "failing"
    def execute(self, subject, pictures):
        raise KeyError("no such tensor")

class Aborting(Fake):
    name = "aborting"
    def execute(self, subject, pictures):
        print("assertion failed: shape", file=sys.stderr, flush=True)
        os.abort()

class Hanging(Fake):
    name = "hanging"
    time_limit = 3.0
    def execute(self, subject, pictures):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        subject.path.with_name("child").write_text(str(child.pid))
        time.sleep(600)

class Losing(Fake):
    name = "losing"
    def execute(self, subject, pictures):
        return Execution("fake 1", tuple(pictures[1:]), self.versions())

class Elsewhere(Fake):
    name = "elsewhere"
    def interpreter(self):
        return Path("/no/such/python")
    def execute(self, subject, pictures):
        raise AssertionError

every = (Doubling, Compiling, Refusing, Failing, Aborting, Hanging, Losing, Elsewhere)
DEVICES = {kind.name: kind() for kind in every}
"""


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Device]]:
    folder = tmp_path_factory.mktemp("catalogue")
    (folder / "fake_catalogue.py").write_text(CATALOGUE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
        yield import_module("fake_catalogue").DEVICES


def subject_at(path: Path, *, precision="float32", dtype="float32", side=None) -> Subject:
    tensor = TensorInfo("image", "NHWC", dtype, (1, side, side, 3))
    artifact = Artifact(
        path.name, "tflite", precision, "0" * 64, 1, tensor, tensor, "tflite", (), 1, {"Conv": 1}
    )
    return Subject(path, artifact, 1)


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return subject_at(tmp_path / "some.tflite")


PICTURES = [np.full((2, 3, 3), level, np.float32) for level in (0.1, 0.2, 0.3)]


def execute(device: Device, subject: Subject):
    return execute_isolated(device, subject, PICTURES, catalogue="fake_catalogue")


def test_outputs_fallbacks_and_facts_come_back_in_order(fakes, subject):
    done = execute(fakes["doubling"], subject)
    assert [float(one[0, 0, 0]) for one in done.outputs] == pytest.approx([0.2, 0.4, 0.6])
    assert done.runtime == "fake 1"
    assert done.fallbacks == {"Split": 2}
    assert done.facts == {"instructions": 5}


def test_a_compiler_gives_no_outputs(fakes, subject):
    done = execute(fakes["compiling"], subject)
    assert done.outputs is None
    assert done.fallbacks is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("refusing", "^Resize is not taken$"),
        ("failing", "KeyError.*no such tensor"),
        ("aborting", r"ended with SIGABRT \(assertion failed: shape\)"),
        ("losing", "2 pictures returned, 3 expected"),
        ("elsewhere", "/no/such/python cannot be started"),
    ],
)
def test_what_fails_in_the_process_is_told(fakes, subject, name, message):
    with pytest.raises(UserError, match=message):
        execute(fakes[name], subject)


def test_a_process_that_hangs_is_ended_with_all_that_it_started(fakes, subject):
    start = time.monotonic()
    with pytest.raises(UserError, match="no result within 3 s; its process was ended"):
        execute(fakes["hanging"], subject)
    assert time.monotonic() - start < 30
    child = int(subject.path.with_name("child").read_text())
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.05)
    pytest.fail("the process that the device started still runs")


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_what_a_file_lacks_for_a_device_is_named(tmp_path):
    gpu = DEVICES["litert-gpu"]
    path = tmp_path / "some.tflite"
    assert gpu.refusal(subject_at(path, side=48)) is None
    assert "--size" in gpu.refusal(subject_at(path))


def test_devices_of_the_catalogue_keep_the_contract():
    for name, device in DEVICES.items():
        assert device.name == name
        assert device.title
        assert device.evidence in get_args(Evidence)
        assert device.takes.formats
        missing = device.missing()
        assert missing is None or (missing.startswith("needs ") and ": " in missing)
        if missing is None:
            assert all(device.versions().values())


def test_the_catalogue_opens_where_a_device_has_an_environment_of_its_own() -> None:
    # Such environments have NumPy and the device's runtime, and little else.
    lacks = "import sys; sys.modules.update(dict.fromkeys(('pydantic', 'torch', 'click')));"
    run = subprocess.run(
        [sys.executable, "-c", f"{lacks} import benchmarks.devices.catalogue"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
