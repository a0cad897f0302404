"""The committed costs of the networks are those that are computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UserError
from runtime.records import read_record
from tools.network_costs import cost_table
from training import shipped
from training.shipped import COSTS_SCHEMA, CostTable, costs_path


@pytest.mark.slow
def test_committed_costs_are_current() -> None:
    committed = read_record(costs_path(), CostTable, COSTS_SCHEMA, "")
    assert committed == cost_table(), "run 'python -m tools.network_costs'"


def test_missing_costs_name_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CostTable({}).write(tmp_path / "costs.json")
    monkeypatch.setattr(shipped, "costs_path", lambda: tmp_path / "costs.json")
    with pytest.raises(UserError, match=r"no costs of carn; .*tools\.network_costs"):
        shipped.shipped_networks()
