from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.tensorboard.writer import SummaryWriter

from benchmarks.curves import draw_curves, read_curves
from runtime.errors import UserError


def test_curves_are_those_of_the_log(tmp_path: Path) -> None:
    log = SummaryWriter(str(tmp_path / "run"))
    for seconds, psnr in ((60, 25.5), (120, 26.25)):
        log.add_scalar("psnr_by_seconds/x2", psnr + 4, seconds)
        log.add_scalar("psnr_by_seconds/x4", psnr, seconds)
    log.close()
    curves = read_curves(tmp_path / "run")
    assert [(curve.name, curve.scale) for curve in curves] == [("run", 2), ("run", 4)]
    assert curves[1].seconds == (60, 120)
    assert curves[1].psnr == (25.5, 26.25)

    pictures = [tmp_path / name for name in ("a.svg", "b.svg")]
    for picture in pictures:
        draw_curves(curves, picture)
    text = pictures[0].read_text()
    assert text == pictures[1].read_text()
    assert "hours of optimizer steps" in text


def test_a_folder_without_validations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no TensorBoard log"):
        read_curves(tmp_path)
