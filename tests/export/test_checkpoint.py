"""Checkpoints of others: read by spandrel, folded, exported, and refused with a reason."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from skimage import data
from torch import Tensor, nn

from export.bundle import bundle_of
from export.sources.checkpoint import import_spandrel, read_checkpoint
from export.sources.finding import find_network
from export.sources.foreign import Foreign
from export.sources.source import Source
from export.sources.tensors import read_tensors
from export.variants import DEFAULT_VARIANTS, Variant
from quantize.ptq import find_scales
from quantize.simulator import int8_reference
from runtime.errors import UserError

if find_spec("spandrel") is None:
    pytest.skip("needs the spandrel extra", allow_module_level=True)
import_spandrel()

State = Mapping[str, Tensor]


def _compact(seed: int = 0) -> nn.Module:
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    torch.manual_seed(seed)
    return SRVGGNetCompact(
        num_in_ch=3, num_out_ch=3, num_feat=16, num_conv=2, upscale=4, act_type="prelu"
    )


def _esrgan(seed: int = 0) -> nn.Module:
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    torch.manual_seed(seed)
    return RRDBNet(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=4)


def _span(seed: int = 0) -> nn.Module:
    from spandrel.architectures.SPAN.__arch.span import SPAN

    torch.manual_seed(seed)
    network = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2)
    with (
        torch.no_grad()
    ):  # It computes on levels, which random weights do not bring back to [0, 1].
        network.conv_1.sk.weight /= 255
        network.conv_1.conv[2].weight /= 255
    return network


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], str, int]] = {
    "compact": (_compact, "RealESRGAN Compact", 4),
    "esrgan": (_esrgan, "ESRGAN", 4),
    "span": (_span, "SPAN", 2),
}


def _esrgan_x2() -> nn.Module:
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    torch.manual_seed(0)
    return RRDBNet(in_nc=12, out_nc=3, num_filters=8, num_blocks=1, scale=4, shuffle_factor=2)


def _drunet() -> nn.Module:
    from spandrel.architectures.DRUNet.__arch.network_unet import DRUNet

    torch.manual_seed(0)
    return DRUNet(in_nc=4, out_nc=3, nc=[4, 8, 8, 8], nb=2)


def _real_cugan() -> nn.Module:
    from spandrel.architectures.RealCUGAN.__arch.upcunet_v3 import UpCunet2x

    torch.manual_seed(0)
    return UpCunet2x(in_channels=3, out_channels=3)


# Their multiple of pixels and least side, and whether they restore tiles.
OF_MULTIPLES: Mapping[str, tuple[Callable[[], nn.Module], int, int, int, bool]] = {
    "esrgan ×2": (_esrgan_x2, 2, 2, 2, True),
    "drunet": (_drunet, 1, 8, 8, True),
    "real-cugan": (_real_cugan, 2, 2, 20, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_MULTIPLES)
def test_networks_of_multiples_are_proven_on_pictures_of_any_size(
    name: str, tmp_path: Path
) -> None:
    build, scale, multiple, minimum, tiles = OF_MULTIPLES[name]
    torch.save(build().state_dict(), tmp_path / "net.pth")
    source = Source.of(_read(tmp_path / "net.pth"), scale)
    variants = [Variant(kind, "float32") for kind in ("onnx", "tflite", "coreml")]
    manifest = bundle_of(source, variants, tmp_path / "out")
    assert (manifest.multiple, manifest.minimum) == (multiple, minimum)
    assert (manifest.halo is not None) == tiles
    for artifact in manifest.artifacts:
        assert artifact.format == "coreml" or artifact.measured.max_abs_diff is not None


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[nn.Module, Path, str, int]:
    """A network with random weights, its checkpoint, its architecture and scale."""
    build, architecture, scale = NETWORKS[request.param]
    module, path = build().eval(), tmp_path / "Their Net_v1.pth"
    torch.save({"params_ema": module.state_dict()}, path)
    return module, path, architecture, scale


def _read(path: Path) -> Foreign:
    return read_checkpoint(path, read_tensors(path))


def _restored(module: nn.Module, image: NDArray[np.float32]) -> Tensor:
    with torch.no_grad():
        restored: Tensor = module(torch.from_numpy(image))
    return restored


def test_the_network_is_the_one_in_the_checkpoint(
    network: Any, picture: Callable[[int, int], NDArray[np.float32]]
) -> None:
    module, path, architecture, scale = network
    found = _read(path)
    assert (found.architecture, *found.modules, found.name) == (architecture, scale, "their-net-v1")
    for size in ((7, 5), (1, 1)):
        image = picture(*size)
        expected = _restored(module, image)
        torch.testing.assert_close(
            _restored(found.at_scale(scale), image), expected, atol=2e-6, rtol=1e-5
        )


@pytest.mark.slow
def test_every_file_of_it_is_proven(network: Any, tmp_path: Path) -> None:
    # Its int8 files are compared with their simulation, the others with the network.
    _, path, architecture, scale = network
    source = Source.of(_read(path), scale)
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(data, name)()[:160, 100:260]).save(tmp_path / f"{name}.png")
    table = find_scales(source, tmp_path)
    manifest = bundle_of(source, DEFAULT_VARIANTS, tmp_path / "out", table, int8_reference)
    assert len(manifest.artifacts) == len(DEFAULT_VARIANTS)
    assert manifest.training["source"]["architecture"] == architecture
    for artifact in manifest.artifacts:
        if artifact.format != "coreml":
            assert artifact.measured.max_abs_diff is not None


def test_branches_are_folded_from_what_was_trained_not_from_the_copy(
    tmp_path: Path, picture: Callable[[int, int], NDArray[np.float32]]
) -> None:
    module = _span().eval()
    expected = _restored(module, picture(6, 6))
    state = module.state_dict()
    for name in state:
        if "eval_conv" in name:
            state[name] = torch.zeros_like(state[name])  # of another step of the training
    torch.save(state, tmp_path / "span.pth")
    restored = _restored(_read(tmp_path / "span.pth").at_scale(2), picture(6, 6))
    torch.testing.assert_close(restored, expected, atol=2e-6, rtol=1e-5)


def _plain(state: State, path: Path) -> None:
    torch.save(dict(state), path)


def _of_a_trainer(state: State, path: Path) -> None:
    averaged = {f"module.{name}": value for name, value in state.items()}
    torch.save({"params": {}, "params_ema": averaged, "epoch": 7}, path)


def _half(state: State, path: Path) -> None:
    save_file({name: value.half() for name, value in state.items()}, path)


@pytest.mark.parametrize(
    ("write", "name", "tolerance"),
    [
        (_plain, "a.pth", 0),
        (_plain, "a.pt", 0),
        (_of_a_trainer, "a.ckpt", 0),
        (_half, "a.safetensors", 1e-3),
    ],
)
def test_what_trainers_save_is_read(
    tmp_path: Path, write: Callable[[State, Path], None], name: str, tolerance: float
) -> None:
    module = _compact()
    write(module.state_dict(), tmp_path / name)
    found = find_network(str(tmp_path / name)).at_scale(4).state_dict()
    for key, expected in module.state_dict().items():
        torch.testing.assert_close(found[f"model.{key}"], expected, atol=tolerance, rtol=0)


class _Code:
    """An object that only a loader that runs code could make again."""


def _refused(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "bad.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError) as caught:
        find_network(str(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_bad_checkpoints_are_refused_with_a_reason(tmp_path: Path) -> None:
    state = _compact().state_dict()
    assert "damaged; copy it again" in _refused(tmp_path, b"PK\x03\x04 no zip")
    assert "damaged; copy it again" in _refused(tmp_path, b"")
    assert "loading those can run code" in _refused(tmp_path, {"net": _Code(), **state})
    assert "holds no tensors" in _refused(tmp_path, {"epoch": 3})
    strange = {"one.weight": torch.ones(3, 2), "two.bias": torch.ones(4)}
    message = _refused(tmp_path, strange)
    assert "2 tensors of no architecture that spandrel knows (one.weight (3, 2), two." in message
    broken = {**state, "body.2.bias": torch.full((16,), torch.nan)}
    assert "body.2.bias holds values that are not finite" in _refused(tmp_path, broken)
    half = {name: value for name, value in state.items() if name != "body.2.bias"}
    assert "body.2.bias" in _refused(tmp_path, half)
    grey = dict(state)
    grey["body.0.weight"] = state["body.0.weight"][:, :1]
    assert "channels" in _refused(tmp_path, grey)
    with pytest.raises(UserError, match="no such checkpoint"):
        find_network(str(tmp_path / "missing.pth"))
    with pytest.raises(UserError, match="no such model"):
        find_network("carn-x")


def test_a_tensor_that_the_network_never_reads_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(type(_compact())):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            restored: Tensor = nn.functional.interpolate(self.body[0](x)[:, :3], scale_factor=4)
            return restored

    arch = importlib.import_module("spandrel.architectures.Compact")
    monkeypatch.setattr(arch, "Compact", Careless)
    # Weights and biases of three convolutions. Slopes of activations are as they were made.
    assert "never reads 6 of its tensors (body.2.weight, …)" in _refused(
        tmp_path, _compact().state_dict()
    )


def test_a_file_as_large_as_no_phone_holds_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.ckpt"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)  # sparse
    with pytest.raises(UserError, match=r"3\.2 GB; checkpoints of networks that run on a phone"):
        find_network(str(path))


def test_the_scale_is_that_of_the_network(tmp_path: Path) -> None:
    torch.save(_span().state_dict(), tmp_path / "span.pth")
    with pytest.raises(UserError, match="restores ×2, not ×4; leave --scale out"):
        find_network(str(tmp_path / "span.pth")).chosen_scale(4)


def test_torchvision_is_needed_by_nobody(tmp_path: Path) -> None:
    """Neither missing nor built for another torch, as beside the CPU build, may it matter."""
    torch.save(_compact().state_dict(), tmp_path / "a.pth")
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from export.sources.finding import find_network\n"
        f"print(find_network({str(tmp_path / 'a.pth')!r}).architecture)\n"
        "assert sys.modules['torchvision'] is None\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert found.stdout == "RealESRGAN Compact\n", found.stderr
