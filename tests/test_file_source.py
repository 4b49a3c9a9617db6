"""Images in single files, labelled by a label file or by their names."""

import json
import os
import pickle
import shutil

import pytest
from dataset_files import WORDS, texts, write_images
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.data.file_source import PackedStrings
from robustscanner_jax.data.sources import open_source


def test_a_labels_tsv_is_read_with_its_images(tmp_path):
    names = write_images(tmp_path / "IIIT5K")
    path = tmp_path / "IIIT5K" / "labels.tsv"
    lines = [f"{n}\t{w}" for n, w in zip(names, WORDS, strict=True)]
    path.write_text("\n".join([lines[0], "", *lines[1:]]), encoding="utf-8")
    for source in (open_source(path), open_source(path.parent)):
        assert source.name == "IIIT5K"
        assert texts(source) == WORDS
        expected = {"id": "img1.png", "image": b"bytes of img1.png", "text": WORDS[1]}
        assert source[1] == expected


def test_a_csv_of_a_header_alone_holds_no_image(tmp_path):
    (tmp_path / "labels.csv").write_text("filename,words\n")
    with pytest.raises(ValueError, match="no labelled image"):
        open_source(tmp_path / "labels.csv")


def test_images_are_found_beside_above_or_below_the_label_file(tmp_path):
    (tmp_path / "sets" / "a").mkdir(parents=True)
    path = tmp_path / "sets" / "labels.tsv"
    path.write_text("img0.png\tx\nimg9.png\ty\n")
    with pytest.raises(ValueError, match=r"labels\.tsv, line 1: image 'img0\.png' not"):
        open_source(path)
    for folder in (tmp_path / "elsewhere", tmp_path, tmp_path / "sets" / "a"):
        write_images(folder, 1)
        images = folder if folder.name == "elsewhere" else None
        source = open_source(path, images=images)
        assert source[0]["image"] == b"bytes of img0.png"
        with pytest.raises(ValueError, match=r"record img9\.png: image cannot be read"):
            source[1]
        if folder.name == "elsewhere":
            shutil.rmtree(folder)


def test_a_long_page_that_is_missing_does_not_hide_where_the_others_are(tmp_path):
    words = [{"transcription": "x", "points": [[0, 0], [9, 0], [9, 9], [0, 9]]}]
    lines = [("gone.png", words * 150), ("img0.png", words)]
    write_images(tmp_path / "pages", 1)
    path = tmp_path / "Label.txt"
    path.write_text("".join(f"{name}\t{json.dumps(page)}\n" for name, page in lines))
    source = open_source(path)
    assert len(source) == 151
    with pytest.raises(ValueError, match=r"record gone\.png#0: image cannot be read"):
        source[0]


def test_a_folder_that_is_a_link_is_looked_into_once(tmp_path):
    image_folder(tmp_path / "elsewhere", ["b_1.png"])
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "all" / "back").symlink_to(tmp_path / "all")
    source = image_folder(tmp_path / "all", ["a_1.png"])
    assert [source[i]["id"] for i in range(2)] == ["a_1.png", "linked/b_1.png"]
    assert len(source) == 2


def test_a_folder_of_an_images_name_is_not_taken_for_the_image(tmp_path):
    write_images(tmp_path, 1)
    path = tmp_path / "sets" / "labels.tsv"
    (path.parent / "img0.png").mkdir(parents=True)
    path.write_text("img0.png\tx\n")
    assert open_source(path)[0]["image"] == b"bytes of img0.png"


def test_several_label_files_are_listed_and_a_readme_is_none(tmp_path):
    write_images(tmp_path, 1)
    (tmp_path / "README.txt").write_text("img0.png\tx\n")
    (tmp_path / "dev.tsv").write_text("img0.png\tx\n")
    assert open_source(tmp_path).name == "dev"
    (tmp_path / "train.tsv").write_text("img0.png\tx\n")
    with pytest.raises(ValueError, match=r"several label files \(dev\.tsv, train\.tsv"):
        open_source(tmp_path)
    (tmp_path / "labels.tsv").write_text("img0.png\tx\n")
    assert open_source(tmp_path).name == tmp_path.name


def image_folder(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bytes of " + path.name.encode())
    return open_source(folder)


def test_file_names_give_the_labels(tmp_path):
    source = image_folder(tmp_path / "a", ["Hello_1.jpg", "sub/wörd_2_x.PNG"])
    assert texts(source) == ["Hello", "wörd"]
    assert source[1]["id"] == os.path.join("sub", "wörd_2_x.PNG")
    names = ["7/1/182_slinking_71711.jpg", "7/2/3_NASA_5.jpg"]
    assert texts(image_folder(tmp_path / "b", names)) == ["slinking", "NASA"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["word_1.png", "word_2.png"], "such as 'word_1.png' hold no label"),
        (["1009_2.png", "1017_1.png"], "such as '1009_2.png' hold no label"),
        (["a_1.png", "photo.png"], "label_anything or .* got 'photo.png'"),
    ],
)
def test_file_names_without_labels_are_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        image_folder(tmp_path, names)


@given(st.lists(st.text()))
def test_packed_strings_are_the_strings(strings):
    packed = PackedStrings()
    for string in strings:
        packed.append(string)
    packed = pickle.loads(pickle.dumps(packed))
    assert [packed[i] for i in range(len(packed))] == strings
