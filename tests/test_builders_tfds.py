"""The published datasets as TensorFlow Datasets, without TensorFlow."""

import sys

import pytest
from pictures import png

pytest.importorskip("tensorflow_datasets")

from data_prep import tfds_builders
from data_prep.builders import READERS
from robustscanner_jax.data.sources import open_source


def write_svtp(root):
    root.mkdir()
    (root / "gt.txt").write_text("a.png ONE\nb.png TWO\nlost.png X\nbad.png Y\n")
    for number, name in enumerate(("a.png", "b.png")):
        (root / name).write_bytes(png(number))
    (root / "bad.png").write_bytes(b"no image")


def test_a_built_dataset_opens_and_holds_the_bytes_of_the_files(tmp_path, capsys):
    write_svtp(tmp_path / "in")
    tfds_builders.main(
        ["svtp", f"--manual_dir={tmp_path / 'in'}", f"--data_dir={tmp_path}"]
    )
    folder = capsys.readouterr().out.strip().splitlines()[-1]
    assert folder == str(tmp_path / "svtp" / "1.0.0")
    source = open_source(folder)
    assert [source[i] for i in range(len(source))] == [
        {"id": "a.png", "image": png(0), "text": "ONE"},
        {"id": "b.png", "image": png(1), "text": "TWO"},
    ]
    assert "tensorflow" not in sys.modules


def test_a_folder_without_the_files_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"found none of gt\.txt.*svtp needs"):
        tfds_builders.main(
            ["svtp", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'out'}"]
        )


def test_there_is_a_builder_for_every_reader():
    assert set(tfds_builders.BUILDERS) == set(READERS)
    for name, builder in tfds_builders.BUILDERS.items():
        assert builder.name == name
        assert READERS[name].NEEDS in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
