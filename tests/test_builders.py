"""Readers of the published datasets, on miniatures of what their authors hand out."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from pictures import picture, png

from data_prep import builders
from data_prep.builders import READERS, open_builder
from data_prep.builders.base import read_all
from data_prep.builders.union14m import LEVELS
from data_prep.checks import Dropped
from data_prep.convert import convert
from robustscanner_jax.data.images import decode_image
from robustscanner_jax.data.sources import open_source

PAGE = picture(0, height=60, width=100)


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(data)


def images(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        put(root / name, png(number))


def words(records) -> list[tuple[str, str]]:
    """Returns (id, text) of a record, (id, reason) of one that is dropped."""
    return [(r.id, r.reason if isinstance(r, Dropped) else r.text) for r in records]


def read(name: str, root: Path, split: str = "train"):
    """Yields every word of a split, or why it is not used."""
    return read_all(open_builder(name, root, split))


def cells(values) -> np.ndarray:
    row = np.empty((1, len(values)), object)
    row[0, :] = [None] * len(values)
    for i, value in enumerate(values):
        row[0, i] = value
    return row


def box(left, top, right, bottom):
    return [[left, right, right, left], [top, top, bottom, bottom]]


def write_synthtext(root: Path, pages, *, compressed: bool = True) -> None:
    """Writes (name, boxes, strings) as gt.mat; a single box is `[2, 4]`."""
    corners = []
    for _, boxes, _ in pages:
        array = np.array(boxes, np.float32).transpose(1, 2, 0)
        corners.append(array[:, :, 0] if len(boxes) == 1 else array)
    content = {
        "charBB": cells([np.zeros((2, 4, 9)) for _ in pages]),
        "imnames": cells([np.array([name]) for name, _, _ in pages]),
        "txt": cells([np.array(strings) for _, _, strings in pages]),
        "wordBB": cells(corners),
    }
    root.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(root / "gt.mat", content, do_compression=compressed)


@pytest.mark.parametrize("compressed", [True, False])
def test_synthtext_words_are_cut_out_and_mismatches_counted(tmp_path, compressed):
    pages = [
        ("8/a.png", [box(10, 5, 50.4, 25), box(60, 30, 99, 59)], ["Hello\nyou  "]),
        ("8/one.png", [box(0, 0, 100, 60)], ["alone"]),
        ("8/more.png", [box(0, 0, 10, 10)] * 2, ["three words here"]),
        (
            "8/box.png",
            [box(-1, 0, 10, 10), box(5, 5, 5, 9), box(0, 0, 101, 9), box(1, 2, 11, 8)],
            ["out  ", "empty", "wide ", "good "],
        ),
        ("8/none.png", [box(0, 0, 10, 10)] * 2, ["a b"]),
    ]
    write_synthtext(tmp_path, pages, compressed=compressed)
    for name, _, _ in pages[:-1]:
        put(tmp_path / name, cv2.imencode(".png", PAGE)[1].tobytes())
    records = list(read("synthtext", tmp_path))
    assert words(records) == [
        ("8/a.png#0", "Hello"),
        ("8/a.png#1", "you"),
        ("8/one.png#0", "alone"),
        ("8/more.png", "count mismatch"),
        ("8/box.png#0", "invalid box"),
        ("8/box.png#1", "invalid box"),
        ("8/box.png#2", "invalid box"),
        ("8/box.png#3", "good"),
        *[("8/none.png", "image missing")] * 2,  # two words
    ]
    assert records[3].detail == "2 boxes, 3 words: ['three', 'words', 'here']"
    for number, part in ((0, PAGE[5:25, 10:50]), (2, PAGE), (7, PAGE[2:8, 1:11])):
        found = decode_image(records[number].image)
        assert found.shape == part.shape
        assert np.abs(found.astype(int) - part).mean() < 6  # JPEG
    report = convert(tmp_path, tmp_path / "o", from_format="synthtext", processes=2)
    assert (report["in"], report["out"]) == (10, 4)
    counts = {reason: entry["count"] for reason, entry in report["dropped"].items()}
    assert counts == {"image missing": 2, "invalid box": 3, "count mismatch": 1}


def test_mjsynth_labels_stand_in_the_file_names(tmp_path):
    root = tmp_path / "mnt/ramdisk/max/90kDICT32px"
    lines = ["./1/2/182_slinking_71711.jpg 71711", "./1/2/7_NASA_5.jpg 5"]
    lines += ["./1/2/9_lost_5.jpg 5", "./1/2/odd.jpg 5", ""]
    put(root / "annotation_train.txt", "\n".join(lines))
    put(root / "annotation.txt", lines[0] + "\n" + lines[1])
    images(root, "1/2/182_slinking_71711.jpg", "1/2/7_NASA_5.jpg")
    assert words(read("mjsynth", tmp_path)) == [
        ("1/2/182_slinking_71711.jpg", "slinking"),
        ("1/2/7_NASA_5.jpg", "NASA"),
        ("1/2/9_lost_5.jpg", "image missing"),
        ("1/2/odd.jpg", "unreadable record"),
    ]
    assert len(words(read("mjsynth", tmp_path, "all"))) == 2
    with pytest.raises(FileNotFoundError, match=r"found none of annotation_val\.txt"):
        list(read("mjsynth", tmp_path, "val"))


def test_synthadd_and_union14m_read_the_lists_of_mmocr(tmp_path):
    entries = [
        {"img_path": f"a/{i}.jpg", "instances": [{"text": t}]}
        for i, t in enumerate(["it's", "x,y", "é"])
    ]
    put(
        tmp_path / "train_labels.json",
        json.dumps({"metainfo": {}, "data_list": entries}),
    )
    images(tmp_path / "SynthText_Add", "a/0.jpg", "a/1.jpg", "a/2.jpg")
    expected = [("a/0.jpg", "it's"), ("a/1.jpg", "x,y"), ("a/2.jpg", "é")]
    assert words(read("synthadd", tmp_path)) == expected

    root = tmp_path / "u"
    images(root, "full_images/x/1.jpg", "full_images/x/2.jpg")
    rows = [json.dumps({"filename": f"x/{i}.jpg", "text": f"t{i}"}) for i in (1, 2)]
    for level in LEVELS:
        put(root / f"train_annos/mmocr-0.x/train_{level}.jsonl", "\n".join(rows))
    with pytest.raises(FileNotFoundError, match="filter_jsonl_mmocr0"):
        list(read("union14m_l", root, "hard"))
    for level in LEVELS:
        name = f"filter_jsonl_mmocr0.x/filter_train_{level}.jsonl"
        put(root / "train_annos" / name, rows[0])
    assert words(read("union14m_l", root, "hard")) == [("x/1.jpg", "t1")]
    assert words(read("union14m_l", root, "hard_unfiltered")) == [
        ("x/1.jpg", "t1"),
        ("x/2.jpg", "t2"),
    ]
    assert len(words(read("union14m_l", root))) == 5
    images(root, "Union14M-Benchmarks/curve/imgs/1.png")
    line = json.dumps({"filename": "1.png", "text": "bent"})
    put(root / "Union14M-Benchmarks/curve/annotation.jsonl", line)
    assert words(read("union14m_benchmark", root, "curve")) == [("1.png", "bent")]


def test_coco_text_v1_keeps_everything_between_the_pipes(tmp_path):
    lines = b"12,|EBB,|\n13,|a|b|\n14,plain\n15\n16,||\n17,|*new* 5*|\n18,|caf\xe9|\n"
    put(tmp_path / "train_words_gt.txt", lines)
    names = (f"{number}.jpg" for number in range(12, 19))
    images(tmp_path / "train_words", *names)
    assert words(read("coco_text_v1", tmp_path)) == [
        ("12.jpg", "EBB,"),
        ("13.jpg", "a|b"),
        ("14.jpg", "plain"),
        ("15", "unreadable record"),
        ("16.jpg", ""),
        ("17.jpg", "*new* 5*"),
        ("18.jpg", "caf\udce9"),
    ]
    report = convert(tmp_path, tmp_path / "out", from_format="coco_text_v1")
    counts = {reason: entry["count"] for reason, entry in report["dropped"].items()}
    expected = ("unreadable record", "label not UTF-8", "empty label")
    assert counts == dict.fromkeys(expected, 1)
    assert (report["in"], report["out"]) == (7, 4)


def test_coco_text_v2_takes_legible_english_print_with_a_margin(tmp_path):
    good = {
        "legibility": "legible",
        "language": "english",
        "class": "machine printed",
        "image_id": 7,
        "bbox": [10.0, 20.0, 30.0, 10.0],
        "utf8_string": "A&amp;B",
    }
    changes = [
        {},
        {"legibility": "illegible"},
        {"language": "not english"},
        {"class": "handwritten"},
        {"utf8_string": "do#r"},
        {"bbox": [0, 0, 200, 10]},
        {"bbox": [0, 0, 20, 10], "utf8_string": "*edge*"},
        {"bbox": [0, 0, float("nan"), 10]},
        {"image_id": 8},
        {"image_id": 9},
    ]
    content = {
        "anns": {str(i): good | change for i, change in enumerate(changes)},
        "imgs": {
            "7": {"file_name": "p.jpg", "set": "train"},
            "8": {"file_name": "q.jpg", "set": "val"},
            "9": {"file_name": "lost.jpg", "set": "train"},
        },
    }
    put(tmp_path / "cocotext.v2.json", json.dumps(content))
    put(tmp_path / "train2014/p.jpg", cv2.imencode(".jpg", PAGE)[1].tobytes())
    records = list(read("coco_text_v2", tmp_path))
    unlabelled = "not a labelled word"
    assert words(records) == [
        *((str(i), unlabelled) for i in (1, 2, 3, 4)),
        ("p#0", "A&B"),
        ("p#5", "invalid box"),
        ("p#6", "*edge*"),
        ("p#7", "invalid box"),
        ("9", "image missing"),
    ]
    assert decode_image(records[4].image).shape == (14, 34, 3)
    assert decode_image(records[6].image).shape == (12, 22, 3)
    assert words(read("coco_text_v2", tmp_path, "val")) == [("8", "image missing")]


def test_iiit5k_reads_both_kinds_of_table(tmp_path):
    names, texts = ["test/1_1.png", "test/1_2.png", "test/2_1.png"], ["The", "7", "A"]
    kind = [("ImgName", "O"), ("GroundTruth", "O")]
    table = np.array([list(zip(names, texts, strict=True))], kind)
    scipy.io.savemat(tmp_path / "testdata.mat", {"testdata": table})
    chars = table.astype([("ImgName", "O"), ("chars", "O")])
    scipy.io.savemat(tmp_path / "trainCharBound.mat", {"trainCharBound": chars})
    images(tmp_path, *names[:2])
    expected = [(names[0], "The"), (names[1], "7"), (names[2], "image missing")]
    assert words(read("iiit5k", tmp_path, "test")) == expected
    assert words(read("iiit5k", tmp_path, "train")) == expected
    scipy.io.savemat(tmp_path / "testdata.mat", {"other": table})
    with pytest.raises(ValueError, match=r"testdata\.mat: expected a table testdata"):
        list(read("iiit5k", tmp_path, "test"))


def test_svt_words_are_cut_out_of_the_street(tmp_path):
    xml = """<tagset><image><imageName>img/a.jpg</imageName><taggedRectangles>
      <taggedRectangle height="20" width="30" x="10" y="5"><tag>LIVING</tag>
      </taggedRectangle><taggedRectangle height="20" width="30" x="-4" y="50">
      <tag>EDGE</tag></taggedRectangle><taggedRectangle height="5" width="5" x="200"
      y="5"><tag>OUT</tag></taggedRectangle></taggedRectangles></image>
      <image><imageName>img/b.jpg</imageName><taggedRectangles><taggedRectangle
      height="5" width="5" x="1" y="1"><tag>LOST</tag></taggedRectangle>
      </taggedRectangles></image></tagset>"""
    put(tmp_path / "svt1/test.xml", xml)
    put(tmp_path / "svt1/img/a.jpg", cv2.imencode(".png", PAGE)[1].tobytes())
    records = list(read("svt", tmp_path, "test"))
    assert words(records) == [
        ("img/a.jpg#0", "LIVING"),
        ("img/a.jpg#1", "EDGE"),
        ("img/a.jpg#2", "invalid box"),
        ("img/b.jpg#0", "image missing"),
    ]
    np.testing.assert_array_equal(decode_image(records[0].image), PAGE[5:25, 10:40])
    np.testing.assert_array_equal(decode_image(records[1].image), PAGE[50:60, 0:26])
    put(tmp_path / "svt1/train.xml", "<tagset><image>")
    with pytest.raises(ValueError, match=r"train\.xml: expected SVT's XML"):
        list(read("svt", tmp_path, "train"))


def test_svtp_and_cute80_read_their_lists(tmp_path):
    put(tmp_path / "p/gt.txt", "13_15_0_par.jpg WYNDHAM\n1_par.jpg two words\n")
    images(tmp_path / "p", "13_15_0_par.jpg", "1_par.jpg")
    assert words(read("svtp", tmp_path / "p", "test")) == [
        ("13_15_0_par.jpg", "WYNDHAM"),
        ("1_par.jpg", "two words"),
    ]
    put(tmp_path / "c/gt.txt", "\ufefftimage/001.jpg RONALDO 1 RONALDO\ntimage/2.jpg\n")
    images(tmp_path / "c", "timage/001.jpg", "timage/2.jpg")
    assert words(read("cute80", tmp_path / "c", "test")) == [
        ("timage/001.jpg", "RONALDO"),
        ("timage/2.jpg", "unreadable record"),
    ]


def test_icdar_subsets_say_what_they_leave_out(tmp_path):
    lines = ["Tiredness", "it's", "ab", "Or,else", "R2D"]
    text = "".join(f'word_{i}.png, "{t}"\r\n' for i, t in enumerate(lines))
    put(tmp_path / "Challenge2_Test_Task3_GT.txt", "\ufeff" + text)
    names = [f"word_{i}.png" for i in range(5)]
    images(tmp_path / "Challenge2_Test_Task3_Images", *names)
    kept = {
        split: [t for _, t in words(read("icdar2013", tmp_path, split)) if t in lines]
        for split in ("test", "test_1015", "test_857")
    }
    assert kept == {
        "test": lines,
        "test_1015": ["Tiredness", "ab", "R2D"],
        "test_857": ["Tiredness", "R2D"],
    }
    left_out = words(read("icdar2013", tmp_path, "test_857"))
    assert left_out[1] == ("word_1.png", "not in this subset")
    assert len(left_out) == 5

    put(tmp_path / "Challenge4_Test_Task3_GT.txt", text)
    images(tmp_path / "ch4_test_word_images_gt", *names)
    assert [t for _, t in words(read("icdar2015", tmp_path, "test"))] == lines
    with pytest.raises(FileNotFoundError, match=r"needs IC15_1811\.txt, the names"):
        read("icdar2015", tmp_path, "test_1811")
    put(tmp_path / "IC15_1811.txt", "\n")
    with pytest.raises(ValueError, match=r"1811\.txt: expected the names of images"):
        read("icdar2015", tmp_path, "test_1811")
    put(tmp_path / "IC15_1811.txt", "word_0.png\nword_4.png\n")
    found = [t for _, t in words(read("icdar2015", tmp_path, "test_1811"))]
    skipped = "not in this subset"
    assert found == ["Tiredness", skipped, skipped, skipped, "R2D"]

    put(tmp_path / "Challenge1_Training_Task3_Images_GT/gt.txt", text)
    images(tmp_path / "Challenge1_Training_Task3_Images_GT", *names)
    assert [t for _, t in words(read("icdar2011", tmp_path))] == lines


def test_every_reader_names_what_it_needs_and_moves_into_workers(tmp_path):
    assert len(READERS) == len(builders.NAMES) == 14
    for name, reader in READERS.items():
        with pytest.raises(ValueError, match=f"--split of {name}: expected one of"):
            open_builder(name, tmp_path, "nonsense")
        for split in reader.SPLITS:
            if split == "test_1811":
                continue
            opened = open_builder(name, tmp_path, split)
            assert pickle.loads(pickle.dumps(opened)) == opened
            with pytest.raises(FileNotFoundError, match=f"{name} needs"):
                list(read_all(opened))
        with pytest.raises(FileNotFoundError, match=f"no such folder; {name} needs"):
            open_builder(name, tmp_path / "none", reader.SPLITS[0])


def test_a_reader_converts_by_its_name(tmp_path):
    put(tmp_path / "in/gt.txt", "a.jpg ONE\nb.jpg TWO\nc.jpg LOST\n")
    images(tmp_path / "in", "a.jpg", "b.jpg")
    arguments = dict(from_format="svtp", split="test", processes=1)
    report = convert(tmp_path / "in", tmp_path / "out", **arguments)
    assert (report["name"], report["in"], report["out"]) == ("svtp_test", 3, 2)
    source = open_source(tmp_path / "out")
    assert [source[i]["text"] for i in range(2)] == ["ONE", "TWO"]


def test_the_real_samples_of_iiit5k_and_icdar_2015_are_read(tmp_path, shared):
    found = words(read("iiit5k", shared("formats/iiit5k"), "train"))
    assert len(found) == 2000 and found[0] == ("train/1009_2.png", "You")
    assert sum(text == "image missing" for _, text in found) == 1940
    found = words(read("icdar2015", shared("formats/icdar2015"), "train"))
    assert len(found) == 4468 and found[0] == ("word_1.png", "Genaxis Theatre")
    assert sum(text == "image missing" for _, text in found) == 4408
