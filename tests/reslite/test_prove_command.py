import pytest

from benchmarks.devices.catalogue import proving
from reslite.__main__ import main


def test_the_list_names_every_device_and_what_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["prove", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(one.name in out for one in proving())
    assert "needs its own environment: reslite prove --prepare tosa" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a folder that 'reslite ship' made, or --list"),
        (["dist", "--on", "tpu"], "tpu: no such device; choose of litert-gpu"),
        (["--prepare", "tpu"], "tpu: no such device"),
        (["nowhere", "--on", "tosa"], "nowhere: holds no manifest.json"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["prove", *arguments]) == 2
    assert message in capsys.readouterr().err
