"""However writing is interrupted, the destination is unchanged or complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.atomic import replacing
from runtime.errors import UserError


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.bin"
    with replacing(path) as temporary:
        temporary.write_bytes(b"content")
        assert temporary.name == "a.bin"
        assert not path.exists()

    assert path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    with replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"new")
        assert (tmp_path / "a.bin").read_bytes() == b"old"

    assert (tmp_path / "a.bin").read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, UserError])
def test_exceptions_pass_and_leave_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")

    def interrupted() -> None:
        with replacing(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()

    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.bin"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    package = tmp_path / "a.mlpackage"
    for content in ("old", "new"):
        with replacing(package) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)

    assert [path.name for path in package.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [package]


def test_a_folder_comes_back_if_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "a.mlpackage"
    package.mkdir()
    (package / "old").write_text("old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == package and (self / "new").exists():
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)

    def replaced() -> None:
        with replacing(package) as temporary:
            temporary.mkdir()
            (temporary / "new").write_text("new")

    with pytest.raises(UserError, match="Input/output error"):
        replaced()

    assert [path.name for path in package.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [package]


def test_a_name_as_long_as_file_systems_allow_is_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 251}.png"
    with replacing(path) as temporary:
        temporary.write_bytes(b"content")

    assert path.read_bytes() == b"content"


def test_a_folder_never_replaces_a_link_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    link = tmp_path / "a.mlpackage"
    link.symlink_to("precious")

    def written() -> None:
        with replacing(link) as temporary:
            temporary.mkdir()

    with pytest.raises(UserError, match="cannot be written"):
        written()

    assert link.is_symlink()
    assert (tmp_path / "precious").is_dir()


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos.png").mkdir()
    (tmp_path / "photos.png" / "precious").write_text("keep me")

    def written() -> None:
        with replacing(tmp_path / "photos.png") as temporary:
            temporary.write_bytes(b"a picture")

    with pytest.raises(UserError, match="cannot be written"):
        written()

    assert (tmp_path / "photos.png" / "precious").read_text() == "keep me"


def test_an_unusable_place_and_a_full_disk_are_the_callers_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    def in_a_file() -> None:
        with replacing(tmp_path / "file" / "a.bin"):
            pass

    def on_a_full_disk() -> None:
        with replacing(tmp_path / "a.bin"):
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="choose another folder"):
        in_a_file()
    with pytest.raises(UserError, match=r"a\.bin: cannot be written \(No space left"):
        on_a_full_disk()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
