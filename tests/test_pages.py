"""Lists of pages and the words on them: read, evaluated, converted, predicted."""

import json
import pickle

import cv2
import numpy as np
import pytest
from pictures import png_header
from training import noise_image, reader

from data_prep.convert import main as convert_main
from data_prep.inputs import open_input
from robustscanner_jax import Recognizer, Region, image_like, predict
from robustscanner_jax.data import pages
from robustscanner_jax.data.images import decode_image
from robustscanner_jax.data.label_lines import BadLine, Row
from robustscanner_jax.data.labels import detect_label_format, read_labels
from robustscanner_jax.data.sources import open_source
from robustscanner_jax.image_like import ImageError
from robustscanner_jax.regions import cut_out

QUAD = [[40, 8], [70, 12], [70, 30], [39, 26]]
# Of two pages: words, one illegible, and one whose region is none.
WORDS = {
    "a.png": [([2, 3, 30, 20], "First"), (QUAD, "two words"), ([1, 2, 3], "bad")],
    "b.png": [([5, 5, 20, 40], "###"), ([10, 10, 60, 30], "Ünï\tcode")],
}


def listed(words, **more):
    entries = [{"transcription": t, "points": p, **more} for p, t in words]
    return json.dumps(entries, ensure_ascii=False)


@pytest.fixture
def folder(tmp_path):
    """Returns a folder of two pages and their list."""
    lines = [f"{name}\t{listed(words)}\n" for name, words in WORDS.items()]
    (tmp_path / "Label.txt").write_text("".join(lines), encoding="utf-8")
    for seed, name in enumerate(WORDS):
        cv2.imwrite(str(tmp_path / name), noise_image(seed, 48, 80))
    return tmp_path


def expected_crops(folder):
    return {
        f"{name}#{number}": cut_out(cv2.imread(str(folder / name)), points)
        for name, words in WORDS.items()
        for number, (points, text) in enumerate(words)
        if text not in ("bad", "###")
    }


def test_a_line_gives_a_row_for_each_word_and_names_what_is_none(folder):
    path = str(folder / "Label.txt")
    assert detect_label_format(path) == "PaddleOCR pages"
    found = list(read_labels(path))
    words = [(row.path, row.number, row.text) for row in found if isinstance(row, Row)]
    assert words == [
        ("a.png", 0, "First"),
        ("a.png", 1, "two words"),
        ("b.png", 1, "Ünï\tcode"),
    ]
    bad = [(row.where, row.reason) for row in found if isinstance(row, BadLine)]
    assert bad == [
        (f"{path}, line 1, region 2", "line of another form"),
        (f"{path}, line 2, region 0", "marked as illegible"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a.png\tword", "line of another form"),
        (b'a.png\t[{"points": [1, 2', "line of another form"),
        (b"a.png", "line of another form"),
        (b'a.png\t[{"points": "\xff"}]', "label not UTF-8"),
    ],
)
def test_a_damaged_line_costs_no_other(folder, line, reason):
    path = folder / "Label.txt"
    path.write_bytes(path.read_bytes() + line + b"\n\n" + path.read_bytes())
    found = list(read_labels(str(path)))
    assert sum(isinstance(row, Row) for row in found) == 6
    assert [row.reason for row in found if row.where.endswith("line 3")] == [reason]


def test_pages_of_very_many_words_are_told_and_empty_ones_say_nothing(tmp_path):
    words = [([1, 2, 30, 40], f"word{i}") for i in range(2_000)]
    path = tmp_path / "Label.txt"
    path.write_text(f"a.png\t{listed(words, difficult=False)}\nb.png\t[]\n")
    assert path.stat().st_size > 2**16
    assert detect_label_format(str(path)) == "PaddleOCR pages"
    assert [row.text for row in read_labels(str(path))] == [t for _, t in words]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_most_pages_may_be_without_words(tmp_path, end):
    path = tmp_path / "Label.txt"
    line = f"d.png\t{listed([([1, 2, 30, 40], 'word')])}"
    lines = [*(f"{name}.png\t[]" for name in "abc"), line, ""]
    path.write_bytes(b"\xef\xbb\xbf" + end.join(lines).encode())
    assert [row[1:3] for row in read_labels(str(path))] == [("d.png", "word")]


def test_a_list_of_illegible_words_alone_is_none_to_read_but_no_other_format(tmp_path):
    path = tmp_path / "Label.txt"
    path.write_text(f"a.png\t{listed([([1, 2, 30, 40], '###')] * 2)}\n")
    found = list(read_labels(str(path)))
    assert [row.reason for row in found] == ["marked as illegible"] * 2
    with pytest.raises(ValueError, match="no labelled image in it"):
        open_source(path)


@pytest.mark.parametrize("entry", [{"transcription": None}, {}, {"transcription": 7}])
def test_a_word_without_its_text_is_no_label(tmp_path, entry):
    path = tmp_path / "Label.txt"
    entries = [entry | {"points": QUAD}, {"transcription": "good", "points": QUAD}]
    path.write_text(f"a.png\t{json.dumps(entries)}\n")
    bad, good = read_labels(str(path))
    assert bad.reason == "path or label missing" and good.text == "good"


def test_labels_in_brackets_are_labels(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text("a.png\t[sic]\nb.png\t[]\nc.png\t[1]\n")
    assert [row.text for row in read_labels(str(path))] == ["[sic]", "[]", "[1]"]


def test_a_source_cuts_the_words_out_and_leaves_the_illegible_out(folder):
    source = open_source(folder / "Label.txt")
    crops = expected_crops(folder)
    for opened in (source, pickle.loads(pickle.dumps(source))):
        assert len(opened) == 4
        expected = {0: ("a.png#0", "First"), 3: ("b.png#1", "Ünï\tcode")}
        for index, (name, text) in expected.items():
            record = opened[index]
            assert (record["id"], record["text"]) == (name, text)
            np.testing.assert_array_equal(decode_image(record["image"]), crops[name])
        with pytest.raises(ValueError, match="line 1, region 2: region: expected two"):
            opened[2]


def test_words_of_a_page_cost_one_decoding_and_a_changed_page_is_read_anew(
    folder, monkeypatch
):
    decoded = []

    def counted(data):
        decoded.append(len(data))
        return decode_image(data)

    monkeypatch.setattr(pages, "decode_image", counted)
    pages._decoded.cache_clear()
    source = open_source(folder / "Label.txt")
    before = source[0]["image"], source[1]["image"]
    assert len(decoded) == 1
    cv2.imwrite(str(folder / "a.png"), noise_image(9, 48, 80))
    assert source[0]["image"] != before[0]
    assert len(decoded) == 2


def test_what_is_missing_or_outside_is_counted_under_its_reason(folder, capsys):
    lines = (folder / "Label.txt").read_text(encoding="utf-8")
    beyond = listed([([900, 900, 910, 910], "far")])
    lines += f"a.png\t{beyond}\nmissing.png\t{listed([([1, 1, 9, 9], 'gone')])}\n"
    (folder / "Label.txt").write_text(lines, encoding="utf-8")
    source = open_source(folder / "Label.txt")
    with pytest.raises(ValueError, match=r"record a\.png#0: .*outside of the page"):
        source[4]
    pages_of = {"empty": b"", "junk": b"junk", "large": png_header(8_000, 8_000)}
    for name, data in pages_of.items():
        (folder / f"{name}.png").write_bytes(data)
        lines += f"{name}.png\t{listed([([1, 1, 9, 9], name)])}\n"
    (folder / "Label.txt").write_text(lines, encoding="utf-8")
    convert_main([f"--input={folder}", f"--output={folder}/out", "--processes=1"])
    report = json.loads((folder / "out" / "report.json").read_text())
    dropped = {reason: found["count"] for reason, found in report["dropped"].items()}
    assert dropped == {
        "line of another form": 1,
        "marked as illegible": 1,
        "invalid box": 1,
        "image missing": 1,
        "image of zero bytes": 1,
        "unreadable image": 1,
        "too many pixels": 1,
    }
    assert report["in"] == 10 and report["out"] == 3
    capsys.readouterr()


def test_a_converted_list_holds_what_the_list_holds(folder, capsys):
    convert_main(
        [
            *("--from=paddleocr-pages", f"--input={folder}/Label.txt"),
            *(f"--output={folder}/out", "--processes=1"),
        ]
    )
    capsys.readouterr()
    source, converted = open_source(folder / "Label.txt"), open_source(folder / "out")
    assert [converted[i] for i in range(3)] == [source[i] for i in (0, 1, 3)]
    with pytest.raises(ValueError, match=r"expected path TAB label .* PaddleOCR pages"):
        open_input(folder / "Label.txt", format_name="paddleocr")


def test_a_list_of_a_detector_is_read_word_by_word(folder, capsys):
    path = folder / "det.txt"
    words = [points for points, _ in WORDS["a.png"]]
    path.write_text(
        f"a.png\t{json.dumps(words)}\nb.png\nb.png\t[]\ngone.png\t[[1,1,9,9]]\n"
    )
    assert predict.run(reader(), [str(path)]) == 2
    captured = capsys.readouterr()
    a, b = folder / "a.png", folder / "b.png"
    crops = [cut_out(cv2.imread(str(a)), points)[..., ::-1] for points in words[:2]]
    texts = [r.text for r in reader().read([*crops, str(b)])]
    lines = [line.split("\t")[:2] for line in captured.out.splitlines()]
    names = [f"{a}#0", f"{a}#1", str(b)]
    assert lines == [list(pair) for pair in zip(names, texts, strict=True)]
    first, second = captured.err.splitlines()
    assert first.startswith(f"{a}#2: region: expected two corners")
    assert second == f"{folder / 'gone.png'}#0: No such file or directory"


def test_labels_are_ignored_unless_the_list_is_of_pages(folder):
    path = folder / "list.tsv"
    path.write_text("a.png\t[]\na.png\t[sic]\nb.png\tword\nb.png\t[1, 2\n")
    names = ["a.png", "a.png", "b.png", "b.png"]
    found = list(predict.find_targets([str(path)]))
    assert found == [predict.Target(folder / name) for name in names]
    path.write_text(f"a.png\t[]\nb.png\t{json.dumps([QUAD])}\n")
    assert list(predict.find_targets([str(path)])) == [
        predict.Target(folder / "b.png", 0, QUAD)
    ]
    path.write_text(f"a.png\t{json.dumps([QUAD])}\nb.png\t{json.dumps([QUAD])[:-1]}\n")
    with pytest.raises(ValueError, match=r"list\.tsv, line 2: expected a JSON list of"):
        list(predict.find_targets([str(path)]))


def test_a_list_may_name_its_own_folder(folder):
    """PPOCRLabel writes `images/a.png` into `images/Label.txt`."""
    path = folder / "det.txt"
    path.write_text(f"{folder.name}/a.png\t{json.dumps([QUAD])}\n")
    (target,) = predict.find_targets([str(path)])
    assert target.path.samefile(folder / "a.png") and target.number == 0


def test_lines_of_json_hold_number_and_points_of_a_region(folder, capsys):
    path = folder / "det.txt"
    path.write_text(f"a.png\t{json.dumps([QUAD, [1, 2, 3]])}\n")
    assert predict.run(reader(), [str(path)], jsonl=True) == 1
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    place = {"path": str(folder / "a.png")}
    expected = place | {"region": 0, "points": QUAD}
    assert {key: good[key] for key in expected} == expected
    assert bad.pop("error").startswith("region: expected")
    assert bad == place | {"region": 1, "points": [1, 2, 3]}
    path.write_text("a.png\t[[NaN, 1, 2, 3]]\n")
    assert predict.run(reader(), [str(path)], jsonl=True) == 1
    line = capsys.readouterr().out
    assert "NaN" not in line and json.loads(line)["points"] is None


def test_pictures_of_regions_change_no_line_and_decode_their_page_once(
    folder, capsys, monkeypatch
):
    path = folder / "det.txt"
    path.write_text(f"a.png\t{json.dumps([QUAD, [2, 3, 30, 20]])}\nb.png\n")
    assert predict.run(reader(), [str(path)]) == 0
    lines = capsys.readouterr().out
    decoded = []
    monkeypatch.setattr(
        image_like, "decode_image", lambda data: decoded.append(1) or decode_image(data)
    )
    assert predict.run(reader(), [str(path)], pictures=folder / "pictures") == 0
    assert capsys.readouterr().out == lines
    names = sorted(picture.name for picture in (folder / "pictures").iterdir())
    assert names == ["a-0.png", "a-1.png", "b.png"]
    assert len(decoded) == 2


def test_regions_are_read_like_their_crops_and_an_error_names_the_page(folder):
    page = folder / "a.png"
    crop = cut_out(cv2.imread(str(page)), QUAD)[..., ::-1]
    of_path, of_crop = reader().read([Region(page, QUAD), crop])
    assert of_path == of_crop
    assert reader().read(Region(page, QUAD)) == of_crop
    errors = list(reader().read_each([Region(page, [900, 900, 910, 910]), crop]))
    assert isinstance(errors[0], ImageError) and errors[0].name == str(page)
    assert "outside of the page" in errors[0].reason and errors[1] == of_crop


def test_words_that_lie_turned_on_a_page_are_read():
    """What ships reads words drawn across a page, each within its quadrilateral."""
    page = np.full((420, 640, 3), 235, np.uint8)
    words = {"Harbour": 0, "Station": 35, "coffee": -70, "MARKET": 180}
    quads = {}
    for place, (word, degrees) in enumerate(words.items()):
        (width, height), below = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 1.2, 3)
        flat = np.full((height + below + 12, width + 16, 3), 235, np.uint8)
        cv2.putText(flat, word, (8, height + 6), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 30, 3)
        h, w = flat.shape[:2]
        matrix = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 1.0)
        middle = 160 + 320 * (place % 2), 110 + 200 * (place // 2)
        matrix[:, 2] += np.array(middle) - (w / 2, h / 2)
        drawn = cv2.warpAffine(flat, matrix, (640, 420), borderValue=(235,) * 3)
        page = np.minimum(page, drawn)
        corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], float)
        quads[word] = corners @ matrix[:, :2].T + matrix[:, 2]
    recognizer = Recognizer.load("tiny")
    readings = recognizer.read([Region(page, quad) for quad in quads.values()])
    assert [reading.text for reading in readings] == list(words)
