import pytest

from benchmarks.devices import environments
from benchmarks.devices.catalogue import proving
from reslite.__main__ import main
from runtime.errors import UserError


def test_the_list_names_every_device_and_what_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["prove", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(one.name in out for one in proving())
    assert "needs its own environment: reslite prove --prepare tosa" in out


def test_an_environment_that_cannot_be_made_does_not_stop_the_others(capsys, monkeypatch):
    made = []

    def prepare(name):
        if name == "tosa":
            raise UserError("tosa: its packages cannot be installed; check the network")
        made.append(name)

    monkeypatch.setattr(environments, "prepare", prepare)
    monkeypatch.setattr(environments, "is_prepared", lambda name: False)
    assert main(["prove", "--prepare", "ncnn"]) == 0
    assert main(["prove", "--prepare", "tosa,ncnn"]) == 1
    assert made == ["ncnn", "ncnn"]
    assert "reslite: tosa: its packages cannot be installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a folder that 'reslite ship' made, or --list"),
        (["dist", "--on", "tpu"], "tpu: no such device; choose of litert-gpu"),
        (["dist", "--on", "openvno"], "did you mean 'openvino'?"),
        (["dist", "--on", "cpu"], "cpu: is measured; 'reslite bench' takes it"),
        (["--prepare", "tpu"], "tpu: no such device"),
        (["nowhere", "--on", "tosa"], "nowhere: holds no manifest.json"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["prove", *arguments]) == 2
    assert message in capsys.readouterr().err
