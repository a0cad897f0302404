"""Write what the networks that ship with reslite cost: ``python -m tools.network_costs``."""

from __future__ import annotations

from benchmarks.multadds import costs_of
from training.catalogue import list_models
from training.shipped import CostTable, costs_path


def cost_table() -> CostTable:
    """Return the costs of all networks that ship with reslite."""
    return CostTable({one.name: costs_of(one.recipe.network) for one in list_models()})


if __name__ == "__main__":
    cost_table().write(costs_path())
