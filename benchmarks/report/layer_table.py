"""Where the time goes, as text: kinds of operators, then the layers that take most."""

from __future__ import annotations

from benchmarks.layers import Profile, kinds_of
from benchmarks.report.tables import text_table

_MOST = 20


def profile_text(profile: Profile, most: int = _MOST) -> str:
    """Return the kinds of operators and the ``most`` layers that take most time."""
    layers = profile.layers
    total = sum(one.milliseconds for one in layers) or 1.0
    kinds = [
        [
            kind.operator,
            str(kind.count),
            f"{kind.milliseconds:.3f}",
            f"{kind.share:.1%}",
            f"{kind.multadds_share:.1%}",
            _rate(kind.multadds, kind.milliseconds),
            f"{kind.bytes / 1e6:.2f}",
        ]
        for kind in kinds_of(layers)
    ]
    costliest = sorted(layers, key=lambda one: -one.milliseconds)[:most]
    rows = [
        [
            one.name or one.operator,
            one.operator,
            f"{one.milliseconds:.3f}",
            f"{one.milliseconds / total:.1%}",
            f"{one.multadds / 1e6:.1f}",
            _rate(one.multadds, one.milliseconds),
            f"{one.bytes / 1e6:.2f}",
            " + ".join(dict.fromkeys(one.steps)),
        ]
        for one in costliest
    ]
    header = ["operators", "count", "ms", "share", "of MultAdds", "GMultAdds/s", "MB"]
    columns = ["layer", "operator", "ms", "share", "MMultAdds", "GMultAdds/s", "MB", "executed as"]
    parts = [
        f"{profile.file} at {profile.size[0]}×{profile.size[1]}, measured by the profiler of "
        f"{profile.runtime}: {total:.2f} ms, sum of the medians of {profile.runs} inferences, "
        f"threads: {profile.threads}",
        text_table(header, kinds),
    ]
    if not profile.joined:
        parts.append("The steps could not be told apart by layer; they stand alone.")
    return "\n\n".join([*parts, text_table(columns, rows)])


def _rate(multadds: int, milliseconds: float) -> str:
    return f"{multadds / milliseconds / 1e6:.1f}" if multadds and milliseconds else ""
