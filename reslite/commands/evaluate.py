"""``reslite evaluate``: scores of a network or an exported file on pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from export.sources.options import Options
from reslite.commands.network import NamedNetwork, takes_network
from training.degradations.levels import ScoredLevel

if TYPE_CHECKING:
    from benchmarks.accuracy import Restore, Scores
    from benchmarks.pairs import FolderPairs, Pair, Pairs
    from export.sources.source import Trained
    from runtime.sides import Sides
    from training.data.pictures import Picture
    from training.metrics.metric import Metric
    from training.tasks import Task


@click.command("evaluate", epilog="Example: reslite evaluate carn-m --scale 4 --data set5/ --json")
@takes_network
@click.option(
    "--level",
    type=click.Choice(get_args(ScoredLevel)),
    help="Level of distortion, for networks trained on SHDD [default: the training's].",
)
@click.option(
    "--task",
    "task_name",
    help="Degradation to undo, as named in recipes [default: the network's training's].",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of pictures; with --split the folder of all test sets [default: RESLITE_DATA].",
)
@click.option(
    "--split",
    help="Score on the pictures of published results: set5, set14, b100, or shdd-test.",
)
@click.option(
    "--tile",
    type=click.IntRange(min=8),
    help="Restore in tiles of this many pixels [default: about 128].",
)
@click.option(
    "--against",
    metavar="MODEL",
    help="Compare with what this network or exported file makes of the same pictures, on whole RGB "
    "[default: with the originals].",
)
@click.option(
    "--metrics",
    "metric_names",
    default="psnr,ssim",
    show_default=True,
    metavar="NAMES",
    help="What is measured beside PSNR: ssim, lpips, niqe, with commas between them.",
)
@click.option("--no-verify", is_flag=True, help="Do not compare the file with its manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def command(
    network: NamedNetwork,
    level: str | None,
    task_name: str | None,
    data: Path | None,
    split: str | None,
    tile: int | None,
    against: str | None,
    metric_names: str,
    no_verify: bool,
    as_json: bool,
) -> None:
    """Score MODEL, a network as in 'reslite ship' or an exported file.

    The folder holds high-resolution pictures, which are reduced as MATLAB does, or a folder HR with
    the reductions beside it in LRx<scale>. PSNR and SSIM are taken on Y after cutting a border.
    For networks that keep the size the pictures are distorted region by region, or come distorted
    in LR beside HR ('reslite make-dataset'); scores are taken on RGB. At the level 'untouched'
    nothing is distorted: a network should return such pictures as they are.

    The task of an exported file is named by the manifest beside it, or by --task. Without both, a
    file that enlarges is taken for bicubic super-resolution, and a file that keeps the size for
    restoration of distorted regions.

    --against tells what a file changes: for example an int8 file against the float32 file beside
    it.

    Of the metrics LPIPS (AlexNet, 0.1) and NIQE tell how natural pictures look, less is better.
    Both are of RGB or Y without the border, and read weights of others from RESLITE_DATA/weights.
    """
    from benchmarks.accuracy import baseline

    metrics = _metrics(metric_names)

    if data is None and split is None:
        raise click.UsageError("name a folder of pictures with --data, or test sets with --split")
    with _opened(network, tile, no_verify) as (restore, trained_for, found_scale):
        task = _task(trained_for, task_name, level)
        if split is None:
            chosen = {"picture": _pairs(cast(Path, data), task, found_scale, level)}
        else:
            chosen = _split_pairs(split, data, task, found_scale, level)
        with _reference(against, found_scale) as reference:
            results = {
                name: _result(restore, baseline(task, found_scale), pairs, reference, metrics)
                for name, pairs in chosen.items()
            }
    if as_json:
        found = {name: result.to_json() for name, result in results.items()}
        click.echo(json.dumps({"split": split, "sets": found} if split else found["picture"]))
    else:
        texts = [one.to_text(name, rows=split is None) for name, one in results.items()]
        click.echo("\n\n".join(texts))


@dataclass(frozen=True)
class _Scored:
    """The scores of one restorer on a set of pictures.

    Attributes:
        scores: PSNR, SSIM and the errors of regions.
        further: The scores by the other metrics, by name, picture by picture.
    """

    scores: Scores
    further: Mapping[str, Sequence[float | None]]

    def means(self, metrics: Sequence[Metric]) -> dict[str, float | None]:
        """Return the mean scores by name, over the pictures that have one."""
        return {one.name: self._mean(one.name) for one in metrics}

    def row(self, index: int) -> dict[str, float | None]:
        """Return the scores of one picture by name."""
        row = self.scores.rows[index]
        further = {name: values[index] for name, values in self.further.items()}
        return {"psnr": row.psnr, "ssim": row.ssim, **further}

    def _mean(self, name: str) -> float | None:
        if name in _OF_SCORES:
            return cast("float | None", getattr(self.scores, name))
        found = [value for value in self.further[name] if value is not None]
        return math.fsum(found) / len(found) if found else None


@dataclass(frozen=True)
class _Result:
    """The scores on one set of pictures, and those without a network."""

    task: Task
    metrics: tuple[Metric, ...]
    after: _Scored
    before: _Scored

    def to_json(self) -> dict[str, Any]:
        """Return the figures; None where pictures equal their originals, or are too small."""
        from benchmarks.accuracy import finite

        def means(scored: _Scored) -> dict[str, float | None]:
            return {name: finite(value) for name, value in scored.means(self.metrics).items()}

        scores = self.after.scores
        return {
            **means(self.after),
            "pictures": scores.pictures,
            "worst": {"picture": scores.worst.name, "psnr": finite(scores.worst.psnr)},
            self.task.baseline_name: means(self.before),
            "kinds": {
                kind: {"before": finite(worse), "after": finite(better)}
                for kind, (worse, better) in scores.by_kind().items()
            },
        }

    def to_text(self, title: str, rows: bool) -> str:
        """Return a table under a title, with or without a row for each picture."""
        scores, scoring = self.after.scores, self.task.scoring
        titles = "".join(f" {scoring.title(one):>9}" for one in self.metrics)
        lines = [f"{title:<28}{titles}"]
        if rows:
            lines += [
                self._line(row.name, self.after.row(index)) for index, row in enumerate(scores.rows)
            ]
        lines.append(self._line(f"mean of {scores.pictures}", self.after.means(self.metrics)))
        if not rows:
            lines.append(self._line(f"worst: {scores.worst.name}", {"psnr": scores.worst.psnr}))
        lines.append(self._line(self.task.baseline_name, self.before.means(self.metrics)))
        for kind, (worse, better) in scores.by_kind().items():
            origin = f"  from {worse:.2f}" if math.isfinite(worse) else ""
            lines.append(self._line(f"{kind} regions", {"psnr": better}) + origin)
        return "\n".join(lines)

    def _line(self, name: str, values: Mapping[str, float | None]) -> str:
        texts = [one.text(values[one.name]) for one in self.metrics if one.name in values]
        return f"{name:<28}" + "".join(f" {text:>9}" for text in texts)


_OF_SCORES = ("psnr", "ssim")
"""What ``benchmarks.accuracy`` measures of every picture."""


def _metrics(names: str) -> tuple[Metric, ...]:
    """Return the metrics of a list of names, PSNR with them, in the order of tables."""
    from runtime.errors import UserError, nearest
    from training.metrics.kinds import METRICS

    asked = [name.strip() for name in names.split(",")]
    for name in asked:
        if name not in METRICS:
            raise UserError(
                f"--metrics {names}: expected names of {', '.join(METRICS)}, with commas between "
                f"them (found '{name}'){nearest(name, list(METRICS))}"
            )
    return tuple(metric for name, metric in METRICS.items() if name in {"psnr", *asked})


class _Measured:
    """Pairs that are measured, by some metrics, when they have been restored and scored."""

    def __init__(self, pairs: Pairs, restore: Restore, metrics: Sequence[Metric]) -> None:
        self._pairs, self._restore = pairs, restore
        self._measures = {one.name: one.build() for one in metrics if one.name not in _OF_SCORES}
        self._restored: Picture | None = None
        self.found: dict[str, list[float | None]] = {name: [] for name in self._measures}

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[Pair]:
        for pair in self._pairs:
            yield pair
            if self._measures and self._restored is not None:
                scoring = pair.task.scoring
                pictures = scoring.compared(self._restored, pair.high, pair.scale)
                for name, measure in self._measures.items():
                    self.found[name].append(measure(pictures))

    def restore(self, low: Picture) -> Picture:
        """Restore the degraded picture of the pair that was last given out."""
        self._restored = self._restore(low)
        return self._restored


def _scored(restore: Restore, pairs: Pairs, metrics: Sequence[Metric], progress: bool) -> _Scored:
    from benchmarks.accuracy import score

    measured = _Measured(pairs, restore, metrics)
    return _Scored(score(measured.restore, measured, progress), measured.found)


def _result(
    restore: Restore,
    before: Restore,
    pairs: FolderPairs,
    reference: Restore | None,
    metrics: tuple[Metric, ...],
) -> _Result:
    """Score on pairs, or against what ``reference`` makes of them."""
    from benchmarks.pairs import PairsAgainst
    from training.metrics import RGB

    task, found = pairs.task, cast("Pairs", pairs)
    if reference is not None:
        task, found = replace(task, scoring=RGB), PairsAgainst(pairs, reference)
    after = _scored(restore, found, metrics, progress=True)
    return _Result(task, metrics, after, _scored(before, found, metrics, progress=False))


@contextmanager
def _reference(against: str | None, scale: int) -> Iterator[Restore | None]:
    """Open what is compared with; None for the originals."""
    if against is None:
        yield None
    else:
        with _opened(NamedNetwork(against, scale, Options()), None, False) as (restore, _, _):
            yield restore


@contextmanager
def _opened(
    network: NamedNetwork, tile: int | None, no_verify: bool
) -> Iterator[tuple[Restore, Task, int]]:
    """Open a network or an exported file: how it restores, what it undoes, and its scale."""
    from benchmarks.accuracy import network_restorer, session_restorer
    from runtime.errors import UserError
    from runtime.formats import BY_SUFFIX

    model, scale = network.name, network.scale
    path = Path(model)
    if path.suffix.lower() in BY_SUFFIX and not _is_of_others(path):
        network.options.check(model, "an exported file")
        import runtime
        from runtime.manifest import read_manifest
        from training.tasks import task_of_manifest

        with runtime.open(model, verify=not no_verify) as session:
            if scale not in (None, session.scale):
                raise UserError(f"{model}: restores ×{session.scale}, not ×{scale}")
            task = task_of_manifest(read_manifest(Path(model).parent), session.scale)
            yield session_restorer(session, tile), task, session.scale
    else:
        if tile is not None or no_verify:
            raise UserError("--tile and --no-verify are for exported files; leave them out")
        found, chosen = network.find()
        yield network_restorer(found.at_scale(chosen), _sides(found, chosen)), found.task, chosen


def _sides(found: Trained, scale: int) -> Sides:
    """Return the sides of pictures that a network of others takes; ours take any."""
    from export.errors import CannotLower
    from export.sources.foreign import Foreign
    from export.sources.source import Source
    from runtime.sides import ANY_SIDES

    if not isinstance(found, Foreign):
        return ANY_SIDES
    try:
        return Source.of(found, scale).graph.sides
    except CannotLower:  # It cannot be exported, but scored.
        return ANY_SIDES


def _is_of_others(path: Path) -> bool:
    """Tell whether a file is a network of others in the format of an exported file."""
    if path.suffix.lower() != ".onnx":
        return False
    from export.sources.onnx_file import is_of_others

    return is_of_others(path)


def _task(trained_for: Task, name: str | None, level: str | None) -> Task:
    from runtime.errors import UserError
    from training.tasks import SHDD, task_named

    task = task_named(name) if name is not None else trained_for
    if level is None:
        return task
    if task not in SHDD.values():
        raise UserError(f"--level {level}: pictures of '{task.name}' have no levels: leave it out")
    return SHDD[cast(ScoredLevel, level)]


def _split_pairs(
    split: str, data: Path | None, task: Task, scale: int, level: str | None
) -> dict[str, FolderPairs]:
    """Return the test sets of a split, by name."""
    from benchmarks.pairs import evaluation_pairs
    from runtime.errors import UserError
    from training.data.pictures import data_folder

    if level is not None:
        raise UserError(f"--level {level}: the sets of --split have their levels: leave it out")
    sets = task.sets_named(split)
    folder = data or data_folder()
    if folder is None:
        needed = ", ".join(dict.fromkeys(f"{name}/" for one in sets for name in one.folders))
        raise UserError(
            f"--split {split}: name the folder that holds {needed} with --data or RESLITE_DATA"
        )
    return {one.name: evaluation_pairs(task, one, folder, scale) for one in sets}


def _pairs(data: Path, task: Task, scale: int, level: str | None) -> FolderPairs:
    from benchmarks.pairs import pairs_in
    from runtime.errors import UserError

    pairs = pairs_in(data, task, scale)
    if level is not None and pairs.come_degraded:
        raise UserError(
            f"--level {level}: applies to pictures without distorted versions, but {data} holds "
            "distorted versions: leave it out"
        )
    return pairs
