"""Image files to lines on standard output."""

import json
import os

import cv2
import pytest
from training import noise_image, reader

from robustscanner_jax import predict
from robustscanner_jax.reading import Reader, Reading
from robustscanner_jax.views import Views


class Silent(Reader):
    """Reads nothing."""

    def decode(self, image, width):
        raise NotImplementedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns ten images in two folders, beside what is no image."""
    root = tmp_path_factory.mktemp("images")
    (root / "inside").mkdir()
    (root / "notes.md").write_text("no image")
    for i in range(10):
        path = root / "inside" / f"{i}.JPG" if i > 7 else root / f"{i}.png"
        cv2.imwrite(str(path), noise_image(i))
    return root


def lines_of(capsys):
    captured = capsys.readouterr()
    return [line.split("\t") for line in captured.out.splitlines()], captured.err


def test_a_folder_is_searched_through_in_the_order_of_names(folder):
    found = predict.find_targets([str(folder)])
    names = [str(target.path.relative_to(folder)) for target in found]
    assert names == [
        *(f"{i}.png" for i in range(8)),
        "inside/8.JPG",
        "inside/9.JPG",
    ]


def test_files_come_as_they_are_given(folder):
    paths = [str(folder / "notes.md"), str(folder / "nowhere.png")]
    assert [target.name for target in predict.find_targets(paths)] == paths


def test_a_list_names_images_and_folders_relative_to_itself(folder):
    path = folder / "inside" / "list.tsv"
    name = os.fsdecode(b"caf\xe9.png")
    body = f"8.JPG\tlabel\r\n\n../0.png\n../inside\n{folder}/1.png\n{name}\tx\ty"
    path.write_bytes(b"\xef\xbb\xbf" + os.fsencode(body))
    try:
        targets = predict.find_targets([str(path), str(folder / "2.png")])
        found = [target.path for target in targets]
    finally:
        path.unlink()
    inside = folder / "inside"
    assert found == [
        *(inside / "8.JPG", inside / "../0.png"),
        *(inside / "../inside/8.JPG", inside / "../inside/9.JPG"),
        *(folder / "1.png", inside / name, folder / "2.png"),
    ]


@pytest.mark.parametrize("place", ["list.txt", "inside/list.txt", "../list.txt"])
def test_a_list_is_relative_to_the_folder_near_it_that_holds_what_it_names(
    tmp_path, place
):
    """PaddleOCR's `predict_det.py` writes names alone, into another folder."""
    folder = tmp_path / "images"
    (folder / "inside").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), noise_image(0))
    path = folder / place
    path.write_text("gone.png\nb.png\na.png\n")
    gone, *found = [target.path for target in predict.find_targets([str(path)])]
    assert found[0].samefile(folder / "b.png") and found[1].samefile(folder / "a.png")
    assert gone.name == "gone.png" and gone.parent.samefile(folder)


def test_a_list_of_what_is_nowhere_is_relative_to_its_own_folder(folder):
    path = folder / "list.txt"
    path.write_text("".join(f"gone{i}.png\n" for i in range(200)))
    found = [target.path for target in predict.find_targets([str(path)])]
    path.unlink()
    assert found == [folder / f"gone{i}.png" for i in range(200)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "No such file or directory"),
        ("\n\n", "expected a path a line, got none"),
        ("PNG\r\n\0\n", "expected lines of text, got bytes"),
    ],
    ids=["missing", "empty", "an image"],
)
def test_what_is_no_list_is_one_sentence(tmp_path, body, message):
    path = tmp_path / "list.txt"
    if body is not None:
        path.write_text(body)
    with pytest.raises(ValueError, match=f"^list of images {path}: {message}$"):
        predict.run(reader(), [str(path)])


def test_each_image_is_a_line_in_the_order_given(folder, capsys):
    paths = [str(folder / f"{i}.png") for i in (5, 0, 7, 5)] + [str(folder)]
    assert predict.run(reader(), paths) == 0
    lines, err = lines_of(capsys)
    assert not err
    expected = [*paths[:4], *(t.name for t in predict.find_targets([str(folder)]))]
    assert [line[0] for line in lines] == expected
    readings = reader().read(expected)
    assert [line[1] for line in lines] == [r.text for r in readings]
    assert [line[2] for line in lines] == [f"{r.confidence:.4f}" for r in readings]


def test_what_cannot_be_read_is_a_line_on_stderr_and_the_rest_is_read(folder, capsys):
    paths = [
        folder / "0.png",
        folder / "nowhere.png",
        folder / "notes.md",
        folder / "1.png",
    ]
    assert predict.run(reader(), [str(p) for p in paths]) == 2
    lines, err = lines_of(capsys)
    assert [line[0] for line in lines] == [str(paths[0]), str(paths[3])]
    first, second = err.splitlines()
    assert first == f"{paths[1]}: No such file or directory"
    assert second == f"{paths[2]}: not an image (8 bytes)"


def test_a_line_of_json_says_what_the_reader_says(folder, capsys):
    paths = [str(folder / f"{i}.png") for i in range(3)]
    assert predict.run(reader(), paths, jsonl=True) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        {
            "path": path,
            "text": reading.text,
            "confidence": round(reading.confidence, 6),
            "characters": list(reading.characters),
            "character_confidences": [
                round(confidence, 6) for confidence in reading.character_confidences
            ],
            "angle": 0,
            "closer": False,
        }
        for path, reading in zip(paths, reader().read(paths), strict=True)
    ]
    assert any(line["characters"] for line in lines)


def test_what_cannot_be_read_is_a_line_of_json_in_its_place(folder, capsys):
    paths = [str(folder / name) for name in ("0.png", "notes.md", "1.png")]
    assert predict.run(reader(), paths, jsonl=True) == 1
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["path"] for line in lines] == paths
    assert lines[1] == {"path": paths[1], "error": "not an image (8 bytes)"}
    assert captured.err == f"{paths[1]}: not an image (8 bytes)\n"


def test_a_line_of_json_is_utf8_whatever_the_path_and_leads_back_to_it():
    name = b'caf\xe9 \xc3\xa9\t"x"\n.png'
    path = predict.Path(os.fsdecode(name))
    line = predict.reading_json(predict.Target(path), Reading("é€", 0.5, (0.5, 1.0)))
    assert "\n" not in line and '"text": "é€"' in line  # as they are where they can be
    assert os.fsencode(json.loads(line.encode("utf-8"))["path"]) == name


def test_a_folder_without_images_is_an_error(tmp_path, capsys):
    assert predict.run(reader(), [str(tmp_path)]) == 1
    assert lines_of(capsys) == ([], f"{tmp_path}: no image in this folder\n")


def test_pictures_of_the_attention_are_drawn_where_they_are_asked_for(
    folder, tmp_path, capsys
):
    paths = [str(folder / "0.png"), str(folder / "notes.md")]
    assert predict.run(reader(), paths, pictures=tmp_path / "pictures") == 1
    (picture,) = (tmp_path / "pictures").iterdir()
    assert picture.name == "0.png" and cv2.imread(str(picture)).std() > 1
    assert len(lines_of(capsys)[0]) == 1


def test_pictures_of_a_reader_that_has_no_attention_are_refused(folder, tmp_path):
    with pytest.raises(TypeError, match="expected a Recognizer to draw them, got"):
        predict.run(Silent(), [str(folder)], pictures=tmp_path)


def test_bad_images_among_several_batches_cost_nothing_else(folder, capsys):
    paths = [str(folder / name) for name in ("0.png", "notes.md", "1.png")]
    given = paths * 5
    assert predict.run(reader(), given) == 5
    lines, err = lines_of(capsys)
    assert [line[0] for line in lines] == [p for p in given if p != paths[1]]
    assert err.splitlines() == [f"{paths[1]}: not an image (8 bytes)"] * 5


def test_images_of_one_name_get_a_picture_each(folder, tmp_path):
    (tmp_path / "other").mkdir()
    for suffix in (".png", ".bmp"):
        cv2.imwrite(str(tmp_path / "other" / f"0{suffix}"), noise_image(3))
    cv2.imwrite(str(tmp_path / "0-2.png"), noise_image(4))
    paths = [str(folder / "0.png"), str(tmp_path / "0-2.png"), str(tmp_path / "other")]
    assert predict.run(reader(), paths, pictures=tmp_path / "pictures") == 0
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"0.png", "0-2.png", "0-3.png", "0-4.png"}


def test_tall_images_are_read_turned_where_that_is_asked_for(tmp_path, capsys):
    for i in range(10):
        cv2.imwrite(str(tmp_path / f"{i}.png"), noise_image(i, height=48, width=24))
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    assert predict.run(reader(), [str(tmp_path)], views=Views(rotate_tall=1.0)) == 0
    lines, _ = lines_of(capsys)
    assert [line[0] for line in lines] == paths
    turning = [r.text for r in reader().read(paths, rotate_tall=1.0)]
    assert [line[1] for line in lines] == turning
    assert turning != [r.text for r in reader().read(paths)]


@pytest.mark.parametrize("drawing", [False, True])
def test_unsure_images_are_read_closer_where_that_is_asked_for(
    tmp_path, capsys, drawing
):
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"{i}.png"), noise_image(i, height=40, width=80))
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    pictures = tmp_path / "pictures" if drawing else None
    views = Views(look_closer=True)
    assert predict.run(reader(), paths, pictures=pictures, views=views) == 0
    lines, _ = lines_of(capsys)
    closer = [r.text for r in reader().read(paths, look_closer=True)]
    assert [line[1] for line in lines] == closer
    assert closer != [r.text for r in reader().read(paths)]


def test_a_line_that_no_path_can_be_is_an_unreadable_image(tmp_path, capsys):
    prose = tmp_path / "notes.txt"
    prose.write_text("a" * 300 + "\n", encoding="utf-8")
    assert predict.run(reader(), [str(prose)]) == 1
    assert "aaa: File name too long" in capsys.readouterr().err
