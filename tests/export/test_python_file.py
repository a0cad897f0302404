"""Networks from Python: built, given weights, and refused with a reason."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from export.capture.torch_capture import capture
from export.errors import CannotLower
from export.execution import execute
from export.sources.finding import find_network
from export.sources.foreign import Foreign
from export.sources.options import Options
from runtime.errors import UserError

Picture = Callable[[int, int], NDArray[np.float32]]

NETWORK = """
    import torch
    from torch import nn

    print("loading")

    class MyNet(nn.Module):
        def __init__(self, channels, scale=2, gain=1.0):
            super().__init__()
            self.gain = gain
            self.head = nn.Conv2d(3, channels, 3, padding=1)
            self.tail = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)
            self.shuffle = nn.PixelShuffle(scale)

        def forward(self, x):
            return self.shuffle(self.tail(torch.relu(self.head(x)))) * self.gain

    def wide():
        return MyNet(channels=6, scale=3)

    ready = MyNet(2)
    number = 7
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_net.py"
    path.write_text(textwrap.dedent(NETWORK))
    return path


def _find(name: object, weights: Path | None = None, **arguments: Any) -> Foreign:
    found = find_network(str(name), Options(weights, arguments))
    assert isinstance(found, Foreign)
    return found


def _reference(channels: int, scale: int) -> nn.Sequential:
    """The network of the file, spelled in another way."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 3 * scale**2, 3, padding=1),
        nn.PixelShuffle(scale),
    ).eval()


def _state(reference: nn.Sequential) -> dict[str, Tensor]:
    names = {"0": "head", "2": "tail"}
    return {
        f"{names[key.partition('.')[0]]}.{key.partition('.')[2]}": value
        for key, value in reference.state_dict().items()
    }


def _restored(module: nn.Module, image: NDArray[np.float32]) -> Tensor:
    with torch.no_grad():
        restored: Tensor = module(torch.from_numpy(image))
    return restored


def _as_safetensors(state: Mapping[str, Tensor], path: Path) -> None:
    save_file(dict(state), path)


def _as_half(state: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: value.half() for name, value in state.items()}, path)


def _as_trainers_do(state: Mapping[str, Tensor], path: Path) -> None:
    averaged = {f"module.{name}": value for name, value in state.items()}
    torch.save({"params": {}, "params_ema": averaged, "epoch": 7}, path)


@pytest.mark.parametrize(
    ("write", "suffix", "tolerance"),
    [
        (_as_safetensors, "safetensors", 0),
        (_as_half, "safetensors", 1e-3),
        (_as_trainers_do, "pth", 0),
    ],
)
def test_the_network_has_the_weights_of_the_file(
    file: Path, tmp_path: Path, picture: Picture, write: Any, suffix: str, tolerance: float
) -> None:
    reference = _reference(8, 2)
    weights = tmp_path / f"w.{suffix}"
    write(_state(reference), weights)
    found = _find(f"{file}:MyNet", weights, channels=8)
    assert (found.name, found.architecture, found.chosen_scale(None)) == ("mynet", "MyNet", 2)
    image = picture(7, 5)
    expected = _restored(reference, image)
    restored = _restored(found.at_scale(2), image)
    torch.testing.assert_close(restored, expected, atol=tolerance, rtol=0)
    source = found.provenance["source"]
    assert (source["file"], source["class"], source["arguments"]) == (
        "my_net.py",
        "MyNet",
        {"channels": 8},
    )
    assert source["weights"]["file"] == weights.name


def test_what_is_captured_computes_what_the_module_does(file: Path, picture: Picture) -> None:
    module = _find(f"{file}:MyNet", channels=4, gain=0.5).at_scale(2)
    image = picture(6, 5)
    restored = execute(capture(module), torch.from_numpy(image))
    torch.testing.assert_close(restored, _restored(module, image), atol=1e-6, rtol=1e-5)


def test_a_function_or_a_module_stands_for_a_class(file: Path) -> None:
    assert _find(f"{file}:wide").chosen_scale(None) == 3
    assert _find(f"{file}:wide").provenance["source"]["weights"].startswith("as constructed")
    assert _find(f"{file}:ready").at_scale(2).head.out_channels == 2  # type: ignore[union-attr]


def test_code_beside_the_file_and_installed_modules_are_found(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.py").write_text("from my_net import wide\n")
    assert _find(f"{tmp_path / 'other.py'}:wide").architecture == "MyNet"
    package = tmp_path / "site" / "their_package"
    package.mkdir(parents=True)
    (package / "nets.py").write_text(file.read_text())
    monkeypatch.syspath_prepend(package.parent)
    found = _find("their_package.nets:MyNet", channels=4)
    assert (found.name, found.provenance["source"]["file"]) == ("mynet", "their_package.nets")


def test_the_hash_changes_with_all_that_the_network_computes(file: Path, tmp_path: Path) -> None:
    save_file(_state(_reference(4, 2)), tmp_path / "w.safetensors")
    hashes = [
        _find(f"{file}:MyNet", channels=4).sha256,
        _find(f"{file}:MyNet", tmp_path / "w.safetensors", channels=4).sha256,
        _find(f"{file}:MyNet", channels=4, gain=0.5).sha256,
    ]
    # Random weights are the same in each process.
    code = (
        "from export.sources.finding import *\n"
        f"print(find_network({f'{file}:MyNet'!r}, Options(None, {{'channels': 4}})).sha256)"
    )
    root = Path(__file__).parents[2]
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert again.stdout == f"{hashes[0]}\n", again.stderr
    assert again.stderr == "loading\n"
    file.write_text(file.read_text().replace("torch.relu", "torch.sigmoid"))
    hashes.append(_find(f"{file}:MyNet", channels=4).sha256)
    assert len(set(hashes)) == 4


def _refused(name: object, weights: Path | None = None, **arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        _find(name, weights, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_names_that_lead_nowhere_are_refused(file: Path, tmp_path: Path) -> None:
    assert _refused(tmp_path / "none.py:Net").endswith(
        "no such file; expected Python code that defines the network"
    )
    assert "name the class or function behind a colon, for example my_net.py:wide" in _refused(file)
    assert "has no 'MyNte'; it defines MyNet, wide; did you mean 'MyNet'?" in _refused(
        f"{file}:MyNte"
    )
    assert "returns a module; found int" in _refused(f"{file}:number")
    assert _refused("no_such_package.nets:Net").startswith(
        "no_such_package.nets: no such installed"
    )
    assert "set(): expected an nn.Module; found set" in _refused("builtins:set")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\n1 / 0\n", "bad.py: raises ZeroDivisionError in line 2: division by zero"),
        ("x = 1\nraise SystemExit(3)\n", "bad.py: raises SystemExit in line 2: 3"),
        ("\nimport no_such_package\n", "raises ModuleNotFoundError in line 2: No module named"),
        ("def net(:\n", "bad.py: no valid Python in line 1: invalid syntax"),
        ("def net():\n    return {}['x']\n", "bad.py:net(): raises KeyError in line 2: 'x'"),
    ],
)
def test_a_file_that_raises_is_refused_with_the_line(
    tmp_path: Path, code: str, message: str
) -> None:
    (tmp_path / "bad.py").write_text(code)
    modules, path = set(sys.modules), list(sys.path)
    assert message in _refused(f"{tmp_path / 'bad.py'}:net")
    assert sys.path == path
    if ":net" not in message:
        assert set(sys.modules) == modules


def test_arguments_are_compared_with_those_of_the_class(file: Path) -> None:
    assert "MyNet: needs channels; say --with channels=…" in _refused(f"{file}:MyNet")
    assert "takes no 'chanels'; it takes channels, scale, gain; did you mean 'channels'?" in (
        _refused(f"{file}:MyNet", chanels=3)
    )
    assert "wide: takes no 'a'; it takes no arguments" in _refused(f"{file}:wide", a=3)
    assert "ready: is a module already" in _refused(f"{file}:ready", a=3)
    assert "MyNet(channels='x'): raises TypeError in line" in _refused(
        f"{file}:MyNet", channels="x"
    )


def test_weights_that_do_not_fit_are_refused_by_name(file: Path, tmp_path: Path) -> None:
    state = _state(_reference(8, 2))
    state["extra"] = torch.ones(1)
    del state["tail.bias"]
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    assert _refused(f"{file}:MyNet", path, channels=4) == (
        f"{path}: its tensors are not those of MyNet: 1 missing: tail.bias; 1 unexpected: extra; "
        "3 misshapen: head.weight (8, 3, 3, 3) instead of (4, 3, 3, 3), head.bias (8,) instead of "
        "(4,), tail.weight (12, 8, 3, 3) instead of (12, 4, 3, 3)"
    )
    state["head.bias"][0] = torch.nan
    save_file(state, path)
    assert "head.bias holds values that are not finite" in _refused(
        f"{file}:MyNet", path, channels=8
    )
    assert "no such checkpoint" in _refused(f"{file}:MyNet", tmp_path / "no.pth", channels=4)
    (tmp_path / "w.txt").write_text("no")
    assert "w.txt: not a checkpoint" in _refused(f"{file}:MyNet", tmp_path / "w.txt", channels=4)


BODIES = {
    "two": "x, y):\n        return self.a(x)",
    "pair": "x):\n        return self.a(x), x",
    "grey": "x):\n        return self.a(x)[:, :1]",
    "half": "x):\n        return self.a(x)[:, :, ::2, ::2]",
    "some": "x):\n        return nn.functional.interpolate(self.a(x), size=(13, 17))",
    "wrong": "x):\n        return self.b(x)",
    "infinite": "x):\n        return self.a(x) / 0",
    "unread": "x):\n        self.b.weight.shape\n        return self.a(x)",
}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("two", "its forward takes x, y; expected one picture"),
        ("pair", "returns a tuple of 2; expected one tensor"),
        ("grey", "turns a picture of shape (1, 3, 6, 9) into (1, 1, 6, 9); expected RGB"),
        ("half", "turns a picture of 6×9 pixels into one of 3×5; expected the same size or a"),
        ("some", "turns a picture of 6×9 pixels into one of 13×17; expected the same size or a"),
        ("wrong", "raises RuntimeError on a picture of 6×9 pixels: Given groups=1, weight of size"),
        ("infinite", "returns values that are not finite numbers on a picture of 6×9 pixels"),
        ("unread", "never reads 2 of its tensors (b.weight, …); leave them out of the network"),
    ],
)
def test_modules_that_do_not_turn_one_picture_into_one_are_refused(
    tmp_path: Path, body: str, message: str
) -> None:
    path = tmp_path / "net.py"
    read = "" if body == "unread" else "+ 0 * self.b(torch.ones(1, 4, 1, 1)).mean()"
    code = BODIES[body].replace("self.a(x)", f"(self.a(x) {read})")
    path.write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.a = nn.Conv2d(3, 3, 1)\n"
        f"        self.b = nn.Conv2d(4, 3, 1)\n    def forward(self, {code}\n"
    )
    assert message in _refused(f"{path}:Net")


def test_a_forward_that_depends_on_values_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "flow.py"
    path.write_text(
        "from torch import nn\nclass Flow(nn.Module):\n    def forward(self, x):\n"
        "        if x.mean() > 0.1:\n            x = x * 2\n        return x\n"
    )
    module = _find(f"{path}:Flow").at_scale(1)
    with pytest.raises(CannotLower, match=r"at 'if x.mean\(\) > 0.1:' \(flow.py:4\); its forward"):
        capture(module)


def test_options_that_say_nothing_are_refused(file: Path, tmp_path: Path) -> None:
    options = Options(Path("w.pth"), {"channels": 3})
    for name, kind in (("carn-m", "a network that reslite trained"), ("a.pth", "a checkpoint")):
        with pytest.raises(UserError, match=f"--weights and --with do not go with {kind}"):
            find_network(name, options)
    with pytest.raises(UserError, match="restores ×2, not ×4; leave --scale out"):
        _find(f"{file}:ready").chosen_scale(4)
