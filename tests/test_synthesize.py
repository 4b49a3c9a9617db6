"""Rendering into a dataset: determinism, resuming, and what bad requests get."""

import json
from pathlib import Path

import pytest

from data_prep import synthesize as command
from data_prep.synthetic import dataset
from data_prep.synthetic.presets import get_settings
from data_prep.synthetic.render import WordRenderer
from robustscanner_jax.data.records import (
    decode_record,
    open_shard,
    read_index,
    shard_path,
)
from tests.synthetic_fonts import fonts_or_skip


@pytest.fixture(scope="module", autouse=True)
def fonts():
    return fonts_or_skip()


def write(folder, **changes):
    request = {"count": 10, "seed": 3, "preset": "easy", "processes": 1, "shards": 3}
    return dataset.synthesize(folder, **{**request, **changes})


def shards(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted(folder.glob("*.array_record"))
    }


def test_the_dataset_holds_the_rendered_words_in_order(tmp_path):
    folder = write(tmp_path / "words")
    index = read_index(folder)
    assert index["count"] == 10 and index["num_shards"] == 3
    assert index["source"]["seed"] == 3
    renderer = WordRenderer(get_settings("easy"), seed=3)
    found = []
    for shard in range(3):
        reader = open_shard(shard_path(folder, dataset.NAME, shard, 3))
        found += [decode_record(payload) for payload in reader.read_all()]
        reader.close()
    assert [record.id for record in found] == [
        f"rendered/easy/3/{number:06d}" for number in range(10)
    ]
    expected = [renderer.render_jpeg(number) for number in range(10)]
    assert [(record.image, record.text) for record in found] == expected


def test_one_and_two_processes_write_the_same_bytes(tmp_path):
    one = write(tmp_path / "one")
    two = write(tmp_path / "two", processes=2)
    assert shards(one) == shards(two) and len(shards(one)) == 3


def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    whole = write(tmp_path / "whole")
    stopped = tmp_path / "stopped"
    render_jpeg = WordRenderer.render_jpeg

    def fails_late(self, index):
        if index == 5:
            raise KeyboardInterrupt
        return render_jpeg(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(WordRenderer, "render_jpeg", fails_late)
        with pytest.raises(KeyboardInterrupt):
            write(stopped)
    with pytest.raises(FileNotFoundError):
        read_index(stopped)
    assert len(shards(stopped)) == 1
    (stopped / "words-00001-of-00003.array_record.99.tmp").write_bytes(b"half")

    rendered = []
    monkeypatch.setattr(
        WordRenderer,
        "render_jpeg",
        lambda self, index: rendered.append(index) or render_jpeg(self, index),
    )
    write(stopped)
    assert min(rendered) == 3  # the finished shard was kept
    assert shards(stopped) == shards(whole)
    assert not list(stopped.glob("*.tmp"))
    rendered.clear()
    write(stopped)
    assert not rendered


def test_another_dataset_in_the_folder_is_not_overwritten(tmp_path):
    folder = write(tmp_path / "words")
    before = shards(folder)
    with pytest.raises(ValueError, match="holds a dataset of other settings"):
        write(folder, seed=4)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        write(other)
    assert shards(folder) == before


@pytest.mark.parametrize("name", ["count", "seed", "processes", "shards"])
def test_numbers_out_of_range_are_named(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}: expected at least"):
        write(tmp_path / "words", **{name: -1})
    assert not (tmp_path / "words").exists()


def test_the_command_changes_settings_and_prints_the_folder(tmp_path, capsys):
    output = tmp_path / "words"
    command.main([
        f"--output={output}", "--count=2", "--preset=easy", "--processes=1",
        "--set=words.lengths=[4,4]", "--set=degrade.jpeg_share=1",
    ])  # fmt: skip
    assert str(output) in capsys.readouterr().out
    kept = json.loads((output / "index.json").read_text())["source"]["settings"]
    assert kept["words"]["lengths"] == [4, 4]
    reader = open_shard(shard_path(output, dataset.NAME, 0, 1))
    assert all(len(decode_record(p).text) == 4 for p in reader.read_all())
    reader.close()


def test_the_dataset_may_lie_in_the_home_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command.main(["--output=~/words", "--count=1", "--preset=easy", "--processes=1"])
    assert read_index(tmp_path / "words")["count"] == 1
    assert str(tmp_path / "words") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--set=words.lenghts=[4,4]", "lenghts"),
        ("--set=words", "expected section.key=value"),
        ("--count=0", "count: expected at least 1"),
    ],
)
def test_the_command_ends_with_one_sentence(tmp_path, change, message):
    with pytest.raises(SystemExit) as stop:
        command.main([f"--output={tmp_path / 'words'}", "--count=2", change])
    assert message in str(stop.value)
