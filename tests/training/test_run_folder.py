from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reslite.__main__ import main
from runtime.atomic import replacing
from runtime.errors import UserError
from training.run_folder import CHECKPOINT, owned


def test_a_second_process_is_kept_out_until_the_first_ends(
    tmp_path: Path, command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, _, *arguments = command(tmp_path / "run")
    with owned(tmp_path / "run"):
        assert main(arguments) == 2
        assert "another process is training into it" in capsys.readouterr().err
    assert main(arguments) == 0


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    killed = replacing(tmp_path / CHECKPOINT)
    killed.__enter__().write_bytes(b"half")
    other = tmp_path / f".{CHECKPOINT}.notes"
    other.write_text("not a writer's")
    with owned(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, ".lock"]


def test_a_run_that_cannot_begin_leaves_nothing(
    tmp_path: Path, command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, _, *arguments = command(tmp_path / "run", "--data", str(tmp_path / "none"))
    assert main(arguments) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_place_where_no_folder_can_be_is_the_callers_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written .*choose another --out"):
        owned(tmp_path / "file").__enter__()
