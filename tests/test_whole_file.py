"""A file that replaces an older one: whole, or not at all."""

import errno
import os
import stat

import pytest

from robustscanner_jax.whole_file import write_whole


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"\x00\r\n\xff", b"\x00\r\n\xff"), ("é\r\nb\n", b"\xc3\xa9\r\nb\n"), ("", b"")],
)
def test_bytes_are_kept_and_text_is_utf8_with_its_own_line_ends(
    tmp_path, data, expected
):
    write_whole(tmp_path / "a", data)
    assert (tmp_path / "a").read_bytes() == expected
    assert os.listdir(tmp_path) == ["a"]


def test_an_older_file_is_replaced_and_who_has_it_open_reads_on(tmp_path):
    write_whole(tmp_path / "a", "the older one")
    with open(tmp_path / "a") as reader:
        write_whole(str(tmp_path / "a"), "new")
        assert reader.read() == "the older one"
    assert (tmp_path / "a").read_text() == "new"


def test_everyone_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_older_file_and_nothing_else(
    tmp_path, monkeypatch, fails
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_whole(tmp_path / "a", "old")
    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_the_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, n=name, f=real: (calls.append(n), f(*a))
        )
    write_whole(tmp_path / "a", "text")
    assert calls == ["fsync", "replace"]


def test_two_writers_with_one_process_id_do_not_meet(tmp_path, monkeypatch):
    """As in two containers that mount one folder."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    replace, names = os.replace, []

    def second_comes_first(source, target):
        names.append(source)
        if len(names) == 1:
            write_whole(tmp_path / "a", "second")
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_comes_first)
    write_whole(tmp_path / "a", "first")
    assert len(set(names)) == 2
    assert (tmp_path / "a").read_text() == "first"


def test_text_that_utf8_cannot_hold_touches_nothing(tmp_path):
    write_whole(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a", "\ud800")
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]
