"""Image files to lines on standard output."""

import cv2
import pytest
from training import noise_image, reader

from robustscanner_jax import predict
from robustscanner_jax.reading import Reader


class Silent(Reader):
    """Reads nothing."""

    def decode(self, image, width):
        raise NotImplementedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns ten images in two folders, beside what is no image."""
    root = tmp_path_factory.mktemp("images")
    (root / "inside").mkdir()
    (root / "notes.txt").write_text("no image")
    for i in range(10):
        path = root / "inside" / f"{i}.JPG" if i > 7 else root / f"{i}.png"
        cv2.imwrite(str(path), noise_image(i))
    return root


def lines_of(capsys):
    captured = capsys.readouterr()
    return [line.split("\t") for line in captured.out.splitlines()], captured.err


def test_a_folder_is_searched_through_in_the_order_of_names(folder):
    names = [str(p.relative_to(folder)) for p in predict.find_images([str(folder)])]
    assert names == [
        *(f"{i}.png" for i in range(8)),
        "inside/8.JPG",
        "inside/9.JPG",
    ]


def test_files_come_as_they_are_given(folder):
    paths = [str(folder / "notes.txt"), str(folder / "nowhere.png")]
    assert [str(p) for p in predict.find_images(paths)] == paths


def test_each_image_is_a_line_in_the_order_given(folder, capsys):
    paths = [str(folder / f"{i}.png") for i in (5, 0, 7, 5)] + [str(folder)]
    assert predict.run(reader(), paths) == 0
    lines, err = lines_of(capsys)
    assert not err
    expected = [*paths[:4], *map(str, predict.find_images([str(folder)]))]
    assert [line[0] for line in lines] == expected
    readings = reader().read(expected)
    assert [line[1] for line in lines] == [r.text for r in readings]
    assert [line[2] for line in lines] == [f"{r.confidence:.4f}" for r in readings]


def test_what_cannot_be_read_is_a_line_on_stderr_and_the_rest_is_read(folder, capsys):
    paths = [
        folder / "0.png",
        folder / "nowhere.png",
        folder / "notes.txt",
        folder / "1.png",
    ]
    assert predict.run(reader(), [str(p) for p in paths]) == 2
    lines, err = lines_of(capsys)
    assert [line[0] for line in lines] == [str(paths[0]), str(paths[3])]
    first, second = err.splitlines()
    assert first == f"{paths[1]}: No such file or directory"
    assert second == f"{paths[2]}: not an image (8 bytes)"


def test_a_folder_without_images_is_an_error(tmp_path, capsys):
    assert predict.run(reader(), [str(tmp_path)]) == 1
    assert lines_of(capsys) == ([], f"{tmp_path}: no image in this folder\n")


def test_pictures_of_the_attention_are_drawn_where_they_are_asked_for(
    folder, tmp_path, capsys
):
    paths = [str(folder / "0.png"), str(folder / "notes.txt")]
    assert predict.run(reader(), paths, pictures=tmp_path / "pictures") == 1
    (picture,) = (tmp_path / "pictures").iterdir()
    assert picture.name == "0.png" and cv2.imread(str(picture)).std() > 1
    assert len(lines_of(capsys)[0]) == 1


def test_pictures_of_a_reader_that_has_no_attention_are_refused(folder, tmp_path):
    with pytest.raises(TypeError, match="expected a Recognizer to draw them, got"):
        predict.run(Silent(), [str(folder)], pictures=tmp_path)


def test_bad_images_among_several_batches_cost_nothing_else(folder, capsys):
    paths = [str(folder / name) for name in ("0.png", "notes.txt", "1.png")]
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
    assert predict.run(reader(), [str(tmp_path)], rotate_tall=1.0) == 0
    lines, _ = lines_of(capsys)
    assert [line[0] for line in lines] == paths
    turning = [r.text for r in reader().read(paths, rotate_tall=1.0)]
    assert [line[1] for line in lines] == turning
    assert turning != [r.text for r in reader().read(paths)]
