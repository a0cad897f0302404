"""Recipes of earlier versions, as the present version spells them.

Weights, checkpoints and manifests hold the recipe of their training for good. Version 1, which
carried no number, was flat; version 2 has sections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VERSION = 2

PLACES: Mapping[str, str] = {
    "train_folder": "data.train",
    "valid_folder": "data.valid",
    "sizes": "data.sizes",
    "by_area": "data.by_area",
    "any_phase": "data.any_phase",
    "permute_colours": "augment",
    "untouched": "augment",
    "loss": "losses.0.kind",
    "luma": "losses.0.luma",
    "identity_weight": "losses.0.identity_weight",
    "scale_weights": "method.scale_weights",
    "all_scales": "method.all_scales",
    "revive_at": "method.revive_at",
    "precision": "execution.precision",
    "masked_dense": "execution.masked_dense",
    "compiled": "execution.compiled",
    "validate_every": "validation.every",
}
"""Where version 2 has the keys of version 1 that moved."""

_NEW_SECTIONS = {"data", "augment", "losses", "method", "execution", "validation"}


def present_version(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a recipe in the present version; unknown keys stay where they are."""
    if "version" in content or content.keys() & _NEW_SECTIONS:
        return dict(content)
    old = dict(content)
    recipe: dict[str, Any] = {"version": VERSION}
    augment: list[dict[str, Any]] = [{"kind": "flips"}]
    if old.pop("permute_colours", False):
        augment.append({"kind": "permuted-colours"})
    if share := old.pop("untouched", 0):
        augment.append({"kind": "untouched", "share": share})
    if isinstance(degradation := old.get("degradation"), str):
        kind, _, level = degradation.partition("-")
        old["degradation"] = [{"kind": kind} | ({"level": level} if level else {})]
    loss = {key: old.pop(key) for key in ("luma", "identity_weight") if key in old}
    recipe["augment"], recipe["losses"] = augment, [{"kind": old.pop("loss", "l1")} | loss]
    for key, place in PLACES.items():
        if key in old:
            section, _, name = place.partition(".")
            recipe.setdefault(section, {})[name] = old.pop(key)
    return recipe | old
