import sys
from pathlib import Path

import pytest

from benchmarks.devices import environments
from benchmarks.devices.catalogue import DEVICES
from benchmarks.devices.environments import SeparateDevice, environment_folder, prepare
from runtime.errors import UserError

SEPARATE = [one for one in DEVICES.values() if isinstance(one, SeparateDevice)]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("device", SEPARATE, ids=lambda one: one.name)
def test_every_package_of_an_environment_is_pinned(device: SeparateDevice) -> None:
    pinned = environments.pinned_versions(device.environment_name)
    assert all(pinned.values())
    assert {"numpy", *device.packages} <= set(pinned)


@pytest.mark.parametrize("device", SEPARATE, ids=lambda one: one.name)
def test_an_environment_that_is_not_made_is_named_with_its_command(device: SeparateDevice) -> None:
    assert device.missing() == (f"needs its own environment: reslite prove --prepare {device.name}")


def test_an_environment_is_made_anew_when_its_requirements_change(tmp_path, monkeypatch):
    requirements = tmp_path / "requirements"
    requirements.mkdir()
    (requirements / "none.txt").write_text("# nothing\n")
    monkeypatch.setattr(environments, "_REQUIREMENTS", requirements)
    prepare("none")
    python = environment_folder("none") / "bin" / "python"
    assert python.exists()
    assert environments.is_prepared("none")
    (requirements / "none.txt").write_text("# still nothing\n")
    assert not environments.is_prepared("none")


def test_an_environment_that_cannot_be_made_leaves_nothing_behind(tmp_path, monkeypatch):
    requirements = tmp_path / "requirements"
    requirements.mkdir()
    (requirements / "wrong.txt").write_text("no name of a package==1\n")
    monkeypatch.setattr(environments, "_REQUIREMENTS", requirements)
    with pytest.raises(UserError, match=r"cannot be installed for Python 3.*ERROR.*no name"):
        prepare("wrong")
    assert not environment_folder("wrong").exists()


def test_an_interpreter_of_its_own_sees_no_library_of_this_one(tmp_path):
    from benchmarks.devices.isolated import _packages_for

    device = SEPARATE[0]
    assert device.interpreter() != Path(sys.executable)
    seen = {one.name for one in Path(_packages_for(device, tmp_path)).iterdir()}
    assert seen == {"runtime", "benchmarks"}
