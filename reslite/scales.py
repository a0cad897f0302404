"""Finding the int8 scales of a network for its files; what was tuned is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.scales import ScaleTable, read_scale_table
from export.sources.source import Source
from quantize import tuning
from quantize.calibration import calibration_pictures, calibration_record
from quantize.ptq import find_scales
from quantize.tuning import limit_for
from reslite.loading import cached_bundle
from runtime.errors import UserError
from runtime.manifest import sha256_of


def found_scales(
    source: Source,
    calibration: Path | None,
    tune: float | None,
    announce: Callable[[str], None] = lambda line: None,
    again: bool = False,
) -> ScaleTable:
    """Find the scales of a network.

    Tuning ends by the clock and never twice at the same weights. Its table is kept in the cache
    folder, so that files of the same network and pictures are the same when they are made again. A
    machine that was busy makes few steps; ``again`` is for such a table.

    Args:
        source: The network.
        calibration: Folder of pictures; as for ``quantize.calibration.calibration_pictures``.
        tune: Minutes of tuning, as for ``quantize.tuning.limit_for``.
        announce: Receives a line of text before and after tuning.
        again: Tune even if a table is kept, and keep the new one instead.
    """
    limit = limit_for(source.model, tune)
    if limit is None:
        return find_scales(source, calibration)
    record = calibration_record(calibration_pictures(calibration))
    folder = cached_bundle(source.model, source.scale)
    # Another way of tuning finds another table.
    way = sha256_of(Path(tuning.__file__))[:8]
    kept = folder / f"scales_{record.sha256[:12]}_{way}_{limit.minutes:g}min.json"
    table = None if again else _kept_in(kept)
    if table is not None:
        announce(f"int8: {table.method}; kept in {folder}, and --overwrite tunes again")
        return table
    announce(f"int8: tuning for {limit.minutes:g} minutes; --tune 0 leaves it out")
    table = find_scales(source, calibration, tuning=limit)
    announce(f"int8: {table.method}")
    folder.mkdir(parents=True, exist_ok=True)
    table.write(kept)
    return table


def _kept_in(path: Path) -> ScaleTable | None:
    try:
        return read_scale_table(path)
    except UserError:
        return None
