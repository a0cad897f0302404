"""Write what the networks that ship with reslite cost: ``python -m tools.network_costs``."""

from __future__ import annotations

from benchmarks.multadds import costs_of
from training.catalogue import list_models
from training.recipe_reading import load_recipe
from training.shipped import UNTRAINED, CostTable, costs_path


def cost_table() -> CostTable:
    """Return the costs of all networks that ship with reslite."""
    recipes = [one.recipe for one in list_models()]
    recipes += [load_recipe(name) for name in UNTRAINED]
    return CostTable({one.name: costs_of(one.network) for one in recipes})


if __name__ == "__main__":
    cost_table().write(costs_path())
