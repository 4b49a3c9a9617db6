"""A folder that replaces an older one: whole, or not at all."""

from pathlib import Path

import pytest

from robustscanner_jax.staging import staged


def write(output, replaceable=lambda folder: True, text="new"):
    with staged(output, replaceable=replaceable) as folder:
        (folder / "graph").write_text(text)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_folder_appears_whole_and_nothing_is_left_beside_it(tmp_path):
    write(tmp_path / "a" / "export")
    assert contents(tmp_path / "a" / "export") == {"graph": "new"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["export"]


def test_what_is_not_replaceable_stays_and_nothing_is_begun(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "app.js").write_text("mine")
    with pytest.raises(ValueError, match="not empty, and not an older export"):
        write(tmp_path / "export", replaceable=lambda folder: False)
    assert contents(tmp_path / "export") == {"app.js": "mine"}


@pytest.mark.parametrize("output", ["file", "file/export"])
def test_a_file_in_the_way_is_named(tmp_path, output):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file: a file is in the way of the folder"):
        write(tmp_path / output)


def test_an_interrupt_between_the_two_renames_puts_the_older_one_back(
    tmp_path, monkeypatch
):
    output = tmp_path / "export"
    write(output, text="old")
    rename, calls = Path.rename, []

    def interrupted(self, target):
        calls.append(self.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(output)
    assert contents(output) == {"graph": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_what_a_link_points_to_is_replaced_and_the_link_stays(tmp_path):
    write(tmp_path / "v1", text="old")
    (tmp_path / "live").symlink_to(tmp_path / "v1", target_is_directory=True)
    write(tmp_path / "live")
    assert (tmp_path / "live").is_symlink()
    assert contents(tmp_path / "v1") == {"graph": "new"}


def test_a_mount_point_is_filled_in_place(tmp_path, monkeypatch):
    """As of a container: a mount point cannot be renamed."""
    output = tmp_path / "out"
    write(output, text="old")
    (output / "older").mkdir()
    rename = Path.rename

    def busy(self, target):
        if output in (self, Path(target)):
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", busy)
    monkeypatch.setattr(Path, "is_mount", lambda self: self == output)
    write(output)
    assert contents(output) == {"graph": "new"}
