"""What every source keeps, and what `open_source` says of what is none."""

import multiprocessing
import subprocess
import sys

import pytest
from dataset_files import WORDS, texts, write_dataset, write_images, write_lmdb

from robustscanner_jax.data.sources import open_source


def test_an_index_outside_of_the_source_is_an_index_error(tmp_path):
    write_dataset(tmp_path / "a")
    write_lmdb(tmp_path / "b")
    names = write_images(tmp_path / "c")
    (tmp_path / "c" / "labels.tsv").write_text("".join(f"{n}\tx\n" for n in names))
    for folder in "abc":
        source = open_source(tmp_path / folder)
        for index in (-1, len(WORDS)):
            with pytest.raises(IndexError, match=f"no record {index}, there are 8"):
                source[index]


def test_nothing_there_an_empty_folder_and_an_unknown_one_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        open_source(tmp_path / "none")
    with pytest.raises(ValueError, match="the folder is empty"):
        open_source(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"no dataset in a known format; known: .*LMDB"
    ):
        open_source(tmp_path)
    with pytest.raises(ValueError, match="#train names a split, but this is no TFDS"):
        open_source(f"{tmp_path}#train")


def test_a_folder_of_datasets_names_them(tmp_path):
    write_lmdb(tmp_path / "SVT")
    write_dataset(tmp_path / "mj")
    with pytest.raises(ValueError, match=r"in subfolders \(SVT, mj\); name one, such"):
        open_source(tmp_path)


def read_second(source):
    return source[1]["text"]


def test_open_sources_move_into_spawned_processes(tmp_path):
    write_dataset(tmp_path / "a")
    write_lmdb(tmp_path / "b")
    names = write_images(tmp_path / "c")
    lines = [f"{n}\t{w}\n" for n, w in zip(names, WORDS, strict=True)]
    (tmp_path / "c" / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    sources = [open_source(tmp_path / folder) for folder in "abc"]
    expected = [read_second(source) for source in sources]  # their files are open now
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(read_second, sources) == expected


@pytest.mark.parametrize("package", ["lmdb", "tensorflow_datasets"])
def test_a_missing_package_is_one_clear_sentence(tmp_path, monkeypatch, package):
    write_lmdb(tmp_path)
    if package == "tensorflow_datasets":
        info = '{"fileFormat": "array_record", "splits": [{"name": "train"}]}'
        features = '{"featuresDict": {"features": {"image": {}, "label": {}}}}'
        (tmp_path / "dataset_info.json").write_text(info)
        (tmp_path / "features.json").write_text(features)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("robustscanner_jax.data.lmdb_source._environments", {})
    install = package.replace("_", "-")
    with pytest.raises(ValueError, match=f"reading an? .*: pip install {install}"):
        open_source(tmp_path)


def test_neither_sources_nor_metrics_import_jax():
    code = (
        "import sys; from robustscanner_jax import accuracy, metrics; "
        "from robustscanner_jax.data import sources; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_real_samples_of_every_format_open(shared):
    formats = shared("formats")
    expected = texts(open_source(formats / "lmdb" / "imgs.lmdb"))
    assert expected[:3] == ["GRAND", "HOTEL", "HOTEL"]
    for name in ("labels.json", "old_label.jsonl", "old_label.txt"):
        assert texts(open_source(formats / "mmocr" / name)) == expected
    labels = open_source(
        formats / "lmdb" / "label.lmdb", images=formats / "mmocr" / "imgs"
    )
    assert texts(labels) == expected
    icdar = open_source(formats / "icdar2015" / "ch4_training_word_images_gt")
    assert len(icdar) == 4468
    assert [icdar[i]["text"] for i in range(3)] == ["Genaxis Theatre", "[06]", "62-03"]


def test_a_sample_whose_image_is_cut_still_hands_out_its_bytes(shared):
    source = open_source(shared("formats/lmdb/broken.lmdb"))
    assert (len(source), source[0]["text"], len(source[0]["image"])) == (
        1,
        "broken",
        512,
    )


def test_the_real_words_open_with_all_their_images(shared):
    source = open_source(shared("real_words/dev.tsv"))
    assert (source.name, len(source)) == ("dev", 1162)
    assert all(source[i]["image"] for i in range(len(source)))
