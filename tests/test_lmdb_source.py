"""LMDB datasets, whole and broken."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from dataset_files import WORDS, texts, write_images, write_lmdb

from robustscanner_jax.data.sources import open_source


def test_an_lmdb_is_read_as_folder_or_as_file(tmp_path):
    write_lmdb(tmp_path / "SVT.lmdb")
    for path in (tmp_path / "SVT.lmdb", tmp_path / "SVT.lmdb" / "data.mdb"):
        source = open_source(path)
        assert source.name == "SVT"
        assert texts(source) == WORDS
        expected = {"id": "SVT/000000002", "image": b"bytes of 2", "text": WORDS[1]}
        assert source[1] == expected
    shutil.copy(tmp_path / "SVT.lmdb" / "data.mdb", tmp_path / "single.mdb")
    assert texts(open_source(tmp_path / "single.mdb")) == WORDS


def test_one_lmdb_serves_two_sources_and_many_threads(tmp_path):
    write_lmdb(tmp_path / "a")
    first, second = open_source(tmp_path / "a"), open_source(tmp_path / "a")
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda i: (first, second)[i % 2][i % 8], range(800)))
    assert [record["text"] for record in found] == WORDS * 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": None}, "no key num-samples, so this is not an LMDB"),
        ({"num_samples": b"many"}, "expected a number under num-samples, got b'many'"),
        ({"num_samples": b"0"}, "empty, num-samples is 0"),
        ({"num_samples": b"9"}, "says 9, but label-000000009 is missing"),
        ({"image_000000001": None}, "no image-000000001, and label-.* is not JSON"),
    ],
)
def test_an_lmdb_with_other_keys_is_named(tmp_path, change, message):
    write_lmdb(tmp_path / "a", **change)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "a")


def test_a_bad_lmdb_record_is_named_and_the_others_are_read(tmp_path):
    change = {"label_000000002": b"caf\xe9", "image_000000003": None}
    write_lmdb(tmp_path / "a", label_000000004=None, **change)
    source = open_source(tmp_path / "a")
    for index, message in [
        (1, r"label-000000002 is not UTF-8: b'caf\\xe9'"),
        (2, "key image-000000003 is missing"),
        (3, "key label-000000004 is missing"),
    ]:
        with pytest.raises(ValueError, match=message):
            source[index]
    assert source[4]["text"] == WORDS[4]


def test_an_lmdb_truncated_anywhere_does_not_open(tmp_path):
    write_lmdb(tmp_path / "a", [f"word{i}" for i in range(300)])
    data = tmp_path / "a" / "data.mdb"
    whole = data.read_bytes()
    for part in range(20):
        data.write_bytes(whole[: len(whole) * part // 20])
        with pytest.raises(ValueError, match="broken LMDB"):
            open_source(tmp_path / "a")


def test_an_lmdb_file_of_something_else_is_broken(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"x" * 100)
    for path in (tmp_path, tmp_path / "data.mdb"):
        with pytest.raises(ValueError, match="broken LMDB"):
            open_source(path)


def test_an_lmdb_of_labels_reads_its_images_from_files(tmp_path):
    write_images(tmp_path / "imgs", 2)
    label = '{"filename": "img%d.png", "text": "word%d"}'
    words = [label % (i, i) for i in range(2)]
    images = {"image_000000001": None, "image_000000002": None}
    write_lmdb(tmp_path / "label.lmdb", words, **images)
    source = open_source(tmp_path / "label.lmdb")
    assert source[1] == {
        "id": "img1.png",
        "image": b"bytes of img1.png",
        "text": "word1",
    }
    (tmp_path / "imgs" / "img0.png").unlink()
    source = open_source(tmp_path / "label.lmdb")
    assert source[1]["text"] == "word1"
    with pytest.raises(ValueError, match=r"record img0\.png: image cannot be read"):
        source[0]
