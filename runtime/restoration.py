"""Restoring picture files: one, several, or whole folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from runtime.atomic import replacing
from runtime.errors import UserError, first_line
from runtime.pictures.files import (
    PictureFile,
    check_format,
    encode_picture,
    has_picture_suffix,
    left_out,
    picture_format,
    picture_paths,
    read_picture,
)
from runtime.pictures.samples import BAND_ROWS, Samples, empty_padded
from runtime.pictures.transparency import with_spread_colours
from runtime.session import Session
from runtime.tiling import restore_tiled


@dataclass(frozen=True)
class Job:
    """A picture to restore and where to write it."""

    source: Path
    destination: Path


@dataclass(frozen=True)
class Report:
    """The outcome of restoring several pictures.

    Attributes:
        finished: Files written.
        skipped: Files that already existed and were not changed.
        failures: A line for each picture that could not be restored; names the picture.
        notes: A line for each file whose format cannot hold all metadata of the picture.
    """

    finished: tuple[Path, ...]
    skipped: tuple[Path, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...] = ()


def restore_picture(
    session: Session,
    picture: PictureFile,
    tile: int | None = None,
    ensemble: bool = False,
    *,
    progress: bool = False,
) -> PictureFile:
    """Restore the colours of a picture and, if it is enlarged, its transparency in a second pass.

    Args:
        session: The opened artifact.
        picture: The picture. If it is grey or its channels are equal, so are the channels of the
            result: each is the mean of the network's three. Colours of fully transparent pixels
            are replaced by the colours of visible pixels beside them.
        tile: Pixels per tile side; see :func:`runtime.tiling.restore_tiled`.
        ensemble: Whether to average eight orientations (eight times slower).
        progress: Whether to draw bars of tiles if stderr is a terminal.

    Returns:
        A picture ``session.scale`` times as high and wide, of the same type, with the colour
        profile and the metadata that still hold.

    Raises:
        UserError: If the artifact cannot restore a picture of this size.
    """

    def restored(samples: Samples, out: Samples | None = None) -> Samples:
        return restore_tiled(session, samples, tile, ensemble=ensemble, progress=progress, out=out)

    height, width = (session.scale * extent for extent in picture.pixels.shape[:2])
    alpha, colours = picture.alpha, picture.pixels
    if alpha is not None:
        colours = with_spread_colours(colours, alpha)
    pixels: Samples = np.empty((height, width, 3), colours.dtype)
    if colours.dtype == np.uint8:
        pixels = empty_padded(height, width)
    if picture.grey or _is_grey(colours):
        restored(colours[..., :1], pixels[..., :1])
        for channel in (1, 2):
            pixels[..., channel] = pixels[..., 0]
    else:
        restored(colours, pixels)
    # At scale 1 alpha is unchanged: the degradation affects the colours only.
    if alpha is not None and session.scale > 1:
        # Restoring a constant plane could only add errors.
        flat = alpha.min() == alpha.max()
        alpha = np.full((height, width, 1), alpha.flat[0]) if flat else restored(alpha)
    metadata = picture.metadata.enlarged(session.scale)
    return PictureFile(pixels, alpha, picture.grey, picture.icc, metadata)


def _is_grey(pixels: Samples) -> bool:
    """Tell whether the three channels are equal: a grey picture that is stored as RGB."""
    first = pixels[..., :1]
    return all(
        np.array_equal(np.broadcast_to(first[band], pixels[band].shape), pixels[band])
        for band in (slice(top, top + BAND_ROWS) for top in range(0, len(pixels), BAND_ROWS))
    )


def restore_file(
    session: Session,
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    overwrite: bool = False,
    tile: int | None = None,
    ensemble: bool = False,
    *,
    progress: bool = True,
) -> str | None:
    """Restore one picture file.

    Args:
        session: The opened artifact.
        source: A PNG, JPEG, WebP or TIFF picture.
        destination: The file to write; its suffix chooses the format.
        overwrite: Whether an existing destination may be replaced.
        tile: Pixels per tile side; see :func:`runtime.tiling.restore_tiled`.
        ensemble: Whether to average eight orientations (eight times slower).
        progress: Whether to draw a bar of tiles if stderr is a terminal.

    Returns:
        A line on the metadata that the destination's format cannot hold, or None.

    Raises:
        UserError: If the destination exists, cannot be written or cannot hold the picture, or the
            source cannot be read. No unfinished file is left, not even after Ctrl-C.
    """
    source, destination = Path(source), Path(destination)
    picture_format(destination)
    if os.path.exists(destination) and not overwrite:  # noqa: PTH110  (see restore_all)
        raise _exists_already(destination)
    picture = read_picture(source)
    check_format(destination, picture, session.scale)
    # The destination is opened first, so that an unwritable folder fails before the work.
    try:
        with replacing(destination) as temporary:
            restored = restore_picture(session, picture, tile, ensemble, progress=progress)
            del picture  # an encoder may need as much memory again
            encode_picture(temporary, restored)
            note = left_out(destination, restored)
    except MemoryError as error:
        raise UserError(
            f"{source}: not enough memory for the restored picture; cut it into smaller ones"
        ) from error
    return note


def restore_folder(
    session: Session,
    folder: str | os.PathLike[str],
    out_folder: str | os.PathLike[str],
    overwrite: bool = False,
    tile: int | None = None,
    ensemble: bool = False,
    *,
    progress: bool = True,
) -> Report:
    """Restore every picture directly in a folder, under the same names in another.

    Arguments, report and errors are as in :func:`destinations` and :func:`restore_all`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a folder of pictures")
    jobs = destinations([folder], Path(out_folder), session.scale)
    return restore_all(
        session, jobs, overwrite=overwrite, tile=tile, ensemble=ensemble, progress=progress
    )


def destinations(
    pictures: Sequence[Path], out: Path | None, scale: int, *, into_folder: bool = False
) -> list[Job]:
    """Decide where each restored picture goes.

    Args:
        pictures: Picture files, and folders that stand for the pictures directly in them.
        out: For a single picture file, a file or a folder; otherwise a folder, in which the
            pictures keep their names. None writes ``NAME_x4.png`` (at scale 1
            ``NAME_restored.png``) beside each file, and pictures of a folder into ``FOLDER_x4``.
        scale: Upscaling factor, for the names.
        into_folder: Whether ``out`` is a folder even if its name looks like a file's.

    Raises:
        UserError: If a folder holds no pictures, if ``out`` cannot hold the pictures, if two
            pictures would have one destination, or if a picture would replace its original.
    """
    mark = f"x{scale}" if scale > 1 else "restored"
    single_file = len(pictures) == 1 and not pictures[0].is_dir()
    into_folder = into_folder or (out is not None and out.is_dir())
    if out is not None and single_file and not into_folder and out.suffix:
        picture_format(out)
        jobs = [Job(pictures[0], out)]
        _refuse_collisions(jobs)
        return jobs
    if out is not None and (out.is_file() or (not into_folder and has_picture_suffix(out))):
        raise UserError(f"{out}: is a file, expected a folder for the restored pictures")
    jobs = []
    for path in pictures:
        if path.is_dir():
            folder = out or path.resolve().with_name(f"{path.resolve().name}_{mark}")
            jobs += [Job(source, folder / source.name) for source in picture_paths(path)]
        elif out is None:
            jobs.append(Job(path, path.with_name(f"{path.stem}_{mark}.png")))
        else:
            jobs.append(Job(path, out / path.name))
    _refuse_collisions(jobs)
    return jobs


def restore_all(
    session: Session,
    jobs: Sequence[Job],
    *,
    overwrite: bool = False,
    tile: int | None = None,
    ensemble: bool = False,
    progress: bool = True,
) -> Report:
    """Restore several pictures; a failure is reported and does not stop the other pictures.

    Pictures that already exist are skipped, so that an interrupted call can be repeated.

    Args:
        session: The opened artifact.
        jobs: The pictures and their destinations, from :func:`destinations`.
        overwrite: Whether existing files may be replaced.
        tile: Pixels per tile side; see :func:`runtime.tiling.restore_tiled`.
        ensemble: Whether to average eight orientations (eight times slower).
        progress: Whether to draw a bar if stderr is a terminal: of pictures, or for a single
            picture of its tiles.

    Raises:
        UserError: If every picture already exists.
    """
    # os.path.exists, because Path.exists raises for names that are too long.
    skipped = [job.destination for job in jobs if os.path.exists(job.destination)]  # noqa: PTH110
    skipped = [] if overwrite else skipped
    if skipped and len(skipped) == len(jobs):
        raise _exists_already(*skipped)
    pending = [job for job in jobs if job.destination not in skipped]
    alone = len(pending) == 1
    finished: list[Path] = []
    failures: list[str] = []
    notes: list[str] = []
    hidden = None if progress and not alone else True
    for job in tqdm(pending, unit="picture", disable=hidden):
        try:
            note = restore_file(
                session,
                job.source,
                job.destination,
                overwrite,
                tile,
                ensemble,
                progress=progress and alone,
            )
            finished.append(job.destination)
            notes += [] if note is None else [note]
        except UserError as error:
            failures.append(str(error))
        except Exception as error:  # no failure of one picture stops the others
            failures.append(f"{job.source}: {type(error).__name__}: {first_line(error)}")
    return Report(tuple(finished), tuple(skipped), tuple(failures), tuple(notes))


def _exists_already(*paths: Path) -> UserError:
    others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return UserError(f"{paths[0]}{others}: already exists; pass --overwrite to replace")


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    taken: dict[str, Path] = {}
    for job in jobs:
        # os.path.realpath, because Path.resolve raises for circular symbolic links.
        destination, source = map(os.path.realpath, (job.destination, job.source))
        if destination == source:
            raise UserError(f"{job.source}: would replace its original; choose another folder")
        if destination in taken:
            raise UserError(
                f"{taken[destination]} and {job.source}: both would become {job.destination}; "
                "restore them into different folders"
            )
        taken[destination] = job.source
