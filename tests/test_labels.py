"""Label files of other toolkits: what is read, and what is said of a bad line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.data.labels import detect_label_format, read_labels
from robustscanner_jax.data.sources import open_source

BOM = b"\xef\xbb\xbf"


def rows(tmp_path, content, name="labels.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(row.path, row.text) for row in read_labels(str(path))]


label_texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r\0")
)


@given(st.lists(label_texts, min_size=1, max_size=6), st.booleans(), st.booleans())
def test_any_label_survives_a_tsv_with_and_without_bom_and_windows_ends(
    tmp_path_factory, words, bom, windows
):
    end = "\r\n" if windows else "\n"
    lines = "".join(f"img{i}.png\t{word}{end}" for i, word in enumerate(words))
    content = (BOM if bom else b"") + lines.encode()
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    path.write_bytes(content)
    assert [row.text for row in read_labels(str(path))] == words


def test_paddle_lists_of_images_become_one_record_each(tmp_path):
    content = '["a.jpg", "b.jpg"]\tword\n[odd].jpg\tother\n'
    expected = [("a.jpg", "word"), ("b.jpg", "word"), ("[odd].jpg", "other")]
    assert rows(tmp_path, content) == expected


def test_a_line_that_does_not_fit_is_named_with_its_number(tmp_path):
    for content, message in [
        ("a.png\tx\n\nb.png y\n", "line 3: expected path TAB label, got 0 TABs"),
        ("a.png\tx\nb.png\ty\tz\n", "line 2: expected path TAB label, got 2 TABs"),
        (b"a.png\tx\nb.png\t\xe9t\xe9\n", "line 2: not UTF-8 at byte 6"),
        ('a.png, "x"\nb.png, y\n', r"line 2: expected `image, \"label\"`"),
        ("a.png x\nb.png\n", "line 2: expected `image label`"),
        ("1/1_a_7.jpg 7\nb.jpg 8\n", "line 2: expected `path/NUMBER_label_INDEX"),
        ("filename,words\na.png,b,c\n", "line 2: expected 2 columns, got 3; a label"),
        ('filename,words\na.png,"b\n', "line 2: unexpected end of data"),
        ('{"filename":"a","text":"b"}\n{"filename":"a"}\n', "line 2: .* 'text' in"),
        ('{"filename":"a","text":"b"}\n{"filen\n', "line 2: not JSON"),
    ]:
        with pytest.raises(ValueError, match=rf"labels\.txt, {message}"):
            rows(tmp_path, content)


def test_icdar_labels_keep_their_commas_quotes_and_backslashes(tmp_path):
    content = BOM + (
        b'word_1.png, "Genaxis Theatre"\r\n'
        b'word_2.png, "a, b, "c""\r\n'
        b'word_3.png, "say \\"hi\\""\r\n'
        b'word_4.png, "C:\\dir"\r\n'
        b'word_5.png, """\r\n'
        b'word_6.png, ""\r\n'
        b'word_7.png,  " x "  \r\n'
    )
    assert rows(tmp_path, content) == [
        ("word_1.png", "Genaxis Theatre"),
        ("word_2.png", 'a, b, "c"'),
        ("word_3.png", 'say "hi"'),
        ("word_4.png", "C:\\dir"),
        ("word_5.png", '"'),
        ("word_6.png", ""),
        ("word_7.png", " x "),
    ]


@given(label_texts.filter(lambda text: "\\" not in text))
def test_any_label_survives_the_icdar_form(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "gt.txt"
    quoted = text.replace('"', '\\"')
    path.write_text(f'word_1.png, "{quoted}"\n', encoding="utf-8", newline="")
    assert [row.text for row in read_labels(str(path))] == [text]


def test_a_label_may_hold_a_nul_or_run_to_any_length(tmp_path):
    content = f"a.png\tx\0y\nb.png\t{'z' * 300}\n"
    assert rows(tmp_path, content) == [("a.png", "x\0y"), ("b.png", "z" * 300)]


def test_mmocr_txt_keeps_everything_after_the_first_space(tmp_path):
    content = "img.png two words\nb.jpg  x \n"
    assert rows(tmp_path, content) == [("img.png", "two words"), ("b.jpg", " x ")]


def test_csv_follows_its_header_and_its_quotes(tmp_path):
    content = 'id,Label,File_Name\n1,"a, ""b""",x.png\n2,"two\nlines",y.png\n'
    assert rows(tmp_path, content) == [("x.png", 'a, "b"'), ("y.png", "two\nlines")]
    assert rows(tmp_path, 'x.png,word\ny.png,"a,b"\n') == [
        ("x.png", "word"),
        ("y.png", "a,b"),
    ]


def test_an_mjsynth_annotation_gives_the_word_of_the_file_name(tmp_path):
    content = "./3000/7/182_slinking_71711.jpg 71711\n./1/2/3_NASA_5.jpg 5\n"
    assert [text for _, text in rows(tmp_path, content)] == ["slinking", "NASA"]


def test_mmocr_json_is_read_pretty_printed_or_on_one_line(tmp_path):
    words = [{"img_path": "a.png", "instances": [{"text": "x"}]}] * 3000
    table = {"metainfo": {"task_name": "textrecog"}, "data_list": words}
    for indent in (None, 1):
        found = rows(tmp_path, json.dumps(table, indent=indent))
        assert found == [("a.png", "x")] * 3000


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            '{"data_list": [{"img_path": "a"}]}',
            r"data_list\[0\]: expected one instance",
        ),
        ('{"data_list": [{"img_path": 1}]}', r"data_list\[0\]: .* 'img_path'"),
        ('{"data_list": 5}', "expected data_list to be a list"),
        ('{"data_list": [', "not MMOCR json"),
        ('{\n"x": {"data_list": []}}', "not MMOCR json"),
    ],
)
def test_broken_mmocr_json_is_named(tmp_path, table, message):
    with pytest.raises(ValueError, match=rf"labels\.txt.*{message}"):
        rows(tmp_path, table)


def test_detection_reads_the_head_of_a_file_only(tmp_path):
    path = tmp_path / "big.tsv"
    with open(path, "wb") as file:
        file.write(b"a.png\tword\n")
        file.truncate(1 << 40)  # sparse: reading it through would take hours
    assert detect_label_format(str(path)) == "path TAB label"


@pytest.mark.parametrize(
    "content",
    [
        b"just words\n",
        b"\x7fELF\0\0",
        b"{}\n",
        b'{"a": 1}\n',
        b"a,b,c\n",
        b"\xff\xfeh\0",
    ],
)
def test_an_unknown_file_lists_the_known_formats(tmp_path, content):
    (tmp_path / "what.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"unknown format.*path TAB label.*CSV"):
        open_source(tmp_path / "what.txt")


@pytest.mark.parametrize("content", [b"", b"\n\n", BOM, b"  \r\n"])
def test_an_empty_label_file_is_called_empty(tmp_path, content):
    (tmp_path / "labels.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=r"labels\.tsv: the file is empty"):
        open_source(tmp_path / "labels.tsv")
