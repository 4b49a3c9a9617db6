"""An input that was changed since it was converted is another one, whatever it is."""

import json
import os
from pathlib import Path

import pytest
import scipy.io
from pictures import png, write_list, write_lmdb
from test_builders import images, put, read, write_synthtext
from test_convert import WORDS, pairs, shards, without_run

from data_prep import conversion, sharding
from data_prep.builders import open_builder
from data_prep.builders.union14m import LEVELS
from data_prep.convert import convert
from data_prep.inputs import open_input


def forget(folder: Path) -> None:
    """Takes what older versions did not write out of a dataset's request."""
    request = folder / sharding.REQUEST_NAME
    known = json.loads(request.read_text(encoding="utf-8"))
    del known["list"]
    request.write_text(json.dumps(known), encoding="utf-8")


def test_a_list_that_was_corrected_since_is_another_dataset(tmp_path):
    path = Path(write_list(tmp_path / "in", pairs(2)))
    report = convert(path, tmp_path / "out", processes=1)
    before = shards(tmp_path / "out")
    again = convert(path, tmp_path / "out", processes=1)
    assert without_run(again) == without_run(report)
    assert again["run"]["entries"] == 0 and "complete" in again["run"]["workers"]
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(WORDS[0], WORDS[0][::-1]), encoding="utf-8")
    with pytest.raises(ValueError, match="or of an input that was changed since"):
        convert(path, tmp_path / "out", processes=1)
    assert shards(tmp_path / "out") == before


def test_a_dataset_of_before_lists_were_digested_is_known_again(tmp_path):
    path = write_list(tmp_path / "in", pairs(2))
    convert(path, tmp_path / "out", processes=1)
    forget(tmp_path / "out")
    assert convert(path, tmp_path / "out", processes=1)["run"]["entries"] == 0


def write_cute80(root: Path, word: str) -> None:
    put(root / "gt.txt", f"timage/1.jpg {word} 1 X\ntimage/2.jpg TWO 1 X\n")
    images(root, "timage/1.jpg", "timage/2.jpg")


def test_a_corrected_list_of_a_published_dataset_is_another_dataset(tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    arguments = dict(from_format="cute80", split="test", processes=1)
    write_cute80(root, "ONE")
    convert(root, out, **arguments)
    assert convert(root, out, **arguments)["run"]["entries"] == 0
    write_cute80(root, "UNO")
    with pytest.raises(ValueError, match="or of an input that was changed since"):
        convert(root, out, **arguments)
    forget(out)
    assert convert(root, out, **arguments)["run"]["entries"] == 0


def test_a_stopped_run_does_not_go_on_with_another_list(tmp_path, monkeypatch):
    root, out = tmp_path / "in", tmp_path / "out"
    arguments = dict(from_format="cute80", split="test", processes=1, shards=2)
    write_cute80(root, "ONE")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(root, out, **arguments)
    (out / "cute80_test-00001-of-00002.array_record").unlink()
    write_cute80(root, "UNO")
    with pytest.raises(ValueError, match="or of an input that was changed since"):
        convert(root, out, **arguments)
    write_cute80(root, "ONE")
    assert convert(root, out, **arguments)["out"] == 2


def write_published(root: Path) -> dict[str, tuple[str, list[str]]]:
    """Writes datasets of every kind; returns name -> (split, its annotations)."""
    put(root / "annotation_train.txt", "./1/1_a_1.jpg 1\n")
    put(root / "train_words_gt.txt", "1,|a|\n")
    put(root / "cocotext.v2.json", json.dumps({"imgs": {}, "anns": {}}))
    put(root / "test.xml", "<tagset></tagset>")
    put(root / "gt.txt", "a.jpg ONE\n")
    put(root / "Challenge4_Test_Task3_GT.txt", 'word_1.png, "a"\n')
    put(root / "IC15_1811.txt", "word_1.png\n")
    write_synthtext(root, [("8/a.png", [[[0, 1, 1, 0], [0, 0, 1, 1]]], ["a"])])
    scipy.io.savemat(root / "testdata.mat", {"testdata": "a"})
    row = json.dumps({"filename": "a.jpg", "text": "a"})
    names = [f"train_annos/mmocr-0.x/train_{level}.jsonl" for level in LEVELS]
    for name in (*names, "curve/annotation.jsonl"):
        put(root / name, row)
    put(root / "train_labels.json", '{"data_list": []}')
    ic15 = "Challenge4_Test_Task3_GT.txt"
    return {
        "mjsynth": ("train", ["annotation_train.txt"]),
        "coco_text_v1": ("train", ["train_words_gt.txt"]),
        "coco_text_v2": ("train", ["cocotext.v2.json"]),
        "svt": ("test", ["test.xml"]),
        "svtp": ("test", ["gt.txt"]),
        "cute80": ("test", ["gt.txt"]),
        "icdar2015": ("test_1811", [ic15, "IC15_1811.txt"]),
        "synthtext": ("train", ["gt.mat"]),
        "synthadd": ("train", ["train_labels.json"]),
        "iiit5k": ("test", ["testdata.mat"]),
        "union14m_l": ("train_unfiltered", names),
        "union14m_benchmark": ("curve", ["curve/annotation.jsonl"]),
    }


def test_every_annotation_counts_and_no_other_file(tmp_path):
    for name, (split, annotations) in write_published(tmp_path).items():
        reader = open_builder(name, tmp_path, split)
        before = reader.digest()
        put(tmp_path / "beside.txt", name)
        assert reader.digest() == before
        seen = {before}
        for annotation in annotations:
            path = tmp_path / annotation
            content = path.read_bytes()
            path.write_bytes(content + b" ")
            seen.add(reader.digest())
            path.write_bytes(content)
        assert len(seen) == len(annotations) + 1, name
        assert reader.digest() == before


def test_the_subset_of_icdar_2015_is_no_list_of_words(tmp_path):
    write_published(tmp_path)
    (record,) = read("icdar2015", tmp_path, "test_1811")
    assert record.id == "word_1.png"


def test_an_lmdb_that_was_written_again_is_another_dataset(tmp_path):
    path = write_lmdb(tmp_path / "lmdb", pairs(2))
    for source in (path, path / "data.mdb"):
        out = tmp_path / f"out-{source.name}"
        convert(source, out, processes=1)
        assert convert(source, out, processes=1)["run"]["entries"] == 0
    (path / "data.mdb").unlink()
    write_lmdb(path, [(image, text[::-1]) for image, text in pairs(2)])
    for source in (path, path / "data.mdb"):
        with pytest.raises(ValueError, match="or of an input that was changed since"):
            convert(source, tmp_path / f"out-{source.name}", processes=1)


def test_shards_that_were_written_again_are_another_input(tmp_path):
    words = tmp_path / "words"
    convert(write_list(tmp_path / "in", pairs(4)), words, processes=1, shards=2)
    one, other = sorted(words.glob("*.array_record"))
    inputs = [open_input(path) for path in (words, words / "*.array_record", one)]
    before = [opened.digest() for opened in inputs]
    (words / "notes.txt").write_text("beside")
    assert [opened.digest() for opened in inputs] == before
    for path, changed in ((other, [True, True, False]), (one, [True] * 3)):
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        after = [opened.digest() for opened in inputs]
        assert [a != b for a, b in zip(after, before, strict=True)] == changed
        before = after


def test_an_image_with_another_name_makes_another_folder(tmp_path):
    folder = tmp_path / "in"
    images(folder, "one_1.png", "below/two_2.png")
    opened = open_input(folder)
    before = opened.digest()
    put(folder / "notes.md", "beside")
    images(folder, "below/two_2.png")
    assert opened.digest() == before
    (folder / "one_1.png").rename(folder / "uno_1.png")
    assert opened.digest() != before


def test_a_folder_of_images_with_a_published_dataset_is_refused(tmp_path):
    write_cute80(tmp_path / "in", "ONE")
    arguments = dict(from_format="cute80", split="test", images=tmp_path / "in")
    with pytest.raises(ValueError, match="--images: cute80 finds its images below"):
        convert(tmp_path / "in", tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_input_images_and_output_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_list(tmp_path / "in", [(png(1), "x")])
    report = convert("~/in", "~/out", images="~/in", processes=1)
    assert (tmp_path / "out" / "index.json").is_file() and not Path("~").exists()
    assert report["request"]["images"] == report["request"]["input"]
    again = convert(tmp_path / "in", tmp_path / "out", images="in", processes=1)
    assert again["run"]["entries"] == 0
