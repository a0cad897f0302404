"""A picture before and after: reduced, enlarged by bicubic interpolation and by files, original.

``python -m tools.before_and_after FIGURE FILE…`` draws the restorations of exported files beside
each other, from a picture of scikit-image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
from PIL import Image, ImageDraw

import runtime
from benchmarks.accuracy import session_restorer
from runtime.atomic import replacing
from training.data.pictures import Picture
from training.degradations import bicubic

_SIDE, _MARGIN, _GAP = 288, 24, 8
"""Of a panel, of its caption and between panels, in pixels."""


def astronaut() -> Picture:
    """Return the astronaut of scikit-image, 512×512."""
    from skimage import data

    picture: Picture = data.astronaut()  # type: ignore[no-untyped-call]
    return picture


def draw_before_and_after(figure: Path, files: Mapping[str, Path]) -> None:
    """Draw bicubic enlargement, the restorations of files and the original side by side.

    Args:
        figure: The PNG file, replaced if it exists.
        files: Exported files of one scale, by their captions.
    """
    original = astronaut()[20:212, 130:322]
    panels: dict[str, Picture] = {}
    for caption, file in files.items():
        with runtime.open(file) as session:
            low = bicubic.reduce(original, session.scale)
            panels.setdefault("bicubic", bicubic.enlarge(low, session.scale))
            panels[caption] = session_restorer(session)(low)
    panels["original"] = original
    count = len(panels)
    drawn = Image.new("RGB", (count * _SIDE + (count - 1) * _GAP, _SIDE + _MARGIN), "white")
    draw = ImageDraw.Draw(drawn)
    for index, (caption, pixels) in enumerate(panels.items()):
        left = index * (_SIDE + _GAP)
        panel = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
        drawn.paste(panel, (left, 0))
        place = (left + _SIDE // 2, _SIDE + _MARGIN // 2)
        draw.text(place, caption, "black", anchor="mm", font_size=15)
    with replacing(figure) as temporary:
        drawn.save(temporary)


@click.command()
@click.argument("figure", type=click.Path(dir_okay=False, path_type=Path))
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def draw(figure: Path, files: tuple[Path, ...]) -> None:
    """Draw the restorations of exported FILES beside the picture before and the original."""
    draw_before_and_after(figure, {file.name: file for file in files})


if __name__ == "__main__":
    draw()
