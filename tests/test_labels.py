"""Label files of other toolkits: what is read, and what is said of a bad line."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.data.label_lines import LINE_REASONS, BadLine, Row
from robustscanner_jax.data.labels import detect_label_format, read_labels
from robustscanner_jax.data.sources import open_source

BOM = b"\xef\xbb\xbf"


def write(tmp_path, content, name="labels.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def rows(tmp_path, content):
    return [(row.path, row.text) for row in read_labels(write(tmp_path, content))]


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
    _, none = read_labels(write(tmp_path, "a.jpg\tword\n[]\tlost\n"))
    assert none[1:] == ("path or label missing", "expected images in the list, got []")


# A file in each format whose second line alone fits: its content, and what is said of
# the first line and of the others.
SLIPS = {
    "TSV": (
        b'a.png y\nb.png\tgood\nc.png\ty\tz\nd.png\t\xe9t\xe9\n\nword_1.png, "x"\n',
        [
            (1, "too few columns", "expected path TAB label, got 0 TABs in 'a.png y'"),
            (3, "too many columns", "got 2 TABs"),
            (4, "label not UTF-8", "not UTF-8 at byte 6"),
            (6, "too few columns", 'the form `image, "label"` of ICDAR'),
        ],
    ),
    "ICDAR": (
        b'a.png, "x\nb.png, "good"\nc.png, y\nd.png\ne.png, "\xff"\n',
        [
            (1, "missing or stray quote", 'expected `image, "label"`'),
            (3, "missing or stray quote", "'c.png, y'"),
            (4, "too few columns", "'d.png'"),
            (5, "label not UTF-8", "byte 8"),
        ],
    ),
    "MMOCR txt": (
        b"a.png\nb.png good\n",
        [(1, "too few columns", "expected `image label`")],
    ),
    "MJSynth": (
        b"odd.jpg\n1/1_good_7.jpg 7\nb.jpg 8\n",
        [
            (1, "line of another form", "expected `path/NUMBER_label_INDEX"),
            (3, "line of another form", "'b.jpg 8'"),
        ],
    ),
    "CSV": (
        b'x.png,a,b\nb.png,good\nc.png\nd.png,"y\ne.png,"y"z\nf.png,\xff\ng.png,"a\n',
        [
            (1, "line of another form", "expected path and label, got"),
            (3, "too few columns", "expected 2 columns, got 1"),
            (4, "missing or stray quote", "a quote is not closed"),
            (5, "missing or stray quote", "expected after"),
            (6, "label not UTF-8", "byte 6"),
            (7, "missing or stray quote", "a quote is not closed"),
        ],
    ),
    "CSV with names": (
        b"id,words,file\n1,good,b.png\n2,a,b,c.png\n3,x\n",
        [
            (3, "too many columns", "holds a comma needs quotes"),
            (4, "too few columns", "expected 3 columns, got 2"),
        ],
    ),
    "MMOCR jsonl": (
        b'{"filen\n{"filename":"b.png","text":"good"}\n{"filename":"a"}\n[1]\n'
        b'{"filename":"a","text":7}\n{"filename":"\xff","text":"x"}\n',
        [
            (1, "line not JSON", "not JSON"),
            (3, "path or label missing", "a string 'text' in"),
            (4, "path or label missing", "a string 'filename' in [1]"),
            (5, "path or label missing", "a string 'text' in"),
            (6, "label not UTF-8", "byte 13"),
        ],
    ),
}


@pytest.mark.parametrize("slips", SLIPS.values(), ids=SLIPS.keys())
@pytest.mark.parametrize("bom", [b"", BOM])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_each_line_that_does_not_fit_is_named_with_its_own_reason(
    tmp_path, slips, bom, end
):
    content, expected = slips
    path = tmp_path / "labels.txt"
    path.write_bytes(bom + content.replace(b"\n", end))
    found = list(read_labels(str(path)))
    assert [(r.path.split("/")[-1], r.text) for r in found if isinstance(r, Row)] in (
        [("b.png", "good")],
        [("1_good_7.jpg", "good")],
    )
    bad = [row for row in found if isinstance(row, BadLine)]
    assert [(row.where, row.reason) for row in bad] == [
        (f"{path}, line {number}", reason) for number, reason, _ in expected
    ]
    for row, (_, _, detail) in zip(bad, expected, strict=True):
        assert detail in row.detail
        assert row.reason in LINE_REASONS


def test_a_quote_that_is_never_closed_costs_one_line_of_a_long_csv(tmp_path):
    lines = [f"{i}.png,word{i}" for i in range(200)]
    lines[50] = '50.png,"word50'
    found = list(read_labels(write(tmp_path, "\n".join(lines))))
    assert [number for number, row in enumerate(found) if isinstance(row, BadLine)] == [
        50
    ]
    assert len(found) == 200


def test_a_line_of_many_megabytes_is_one_bad_line_and_takes_no_memory(tmp_path):
    path = tmp_path / "labels.tsv"
    with open(path, "wb") as file:
        file.write(b"a.png\tx\n")
        file.seek(200_000_000, 1)  # sparse: zeros, as a lost disk block leaves them
        file.write(b"\nb.png\ty\n")
    tracemalloc.start()
    found = list(read_labels(str(path)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row[1] for row in found] == ["a.png", "line of another form", "b.png"]
    assert found[1].detail == "longer than a million bytes"
    assert peak < 5e6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\tc\nd\te\tf\n", "path TAB label, but not one of 2 lines fits; .*line 1"),
        ('{"filename": 1}\n', "MMOCR jsonl, but not one of 1 lines fits.*'filename'"),
        ("name,words\nx,y\n", "unknown format, the first line is 'name,words'"),
        (b"a.png\tx\n" + 3 * b"b.png\t\xe9\n", "3 of 4 lines are not UTF-8.*line 2"),
        (b'\xef\xbb\xbf[\n {"filename": "a.png", "text": "x"}]', "a JSON list.* jq -c"),
    ],
)
def test_a_file_of_another_kind_stops_with_one_sentence(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"labels\.txt: .*{message}"):
        list(read_labels(write(tmp_path, content)))


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line)))
def test_any_bytes_between_good_lines_leave_the_good_ones(tmp_path_factory, noise):
    path = tmp_path_factory.getbasetemp() / "noise.tsv"
    # As many good lines as others: the format is a matter of majority.
    good = [b"good%d.png\tword" % i for i in range(2 * len(noise) + 1)]
    path.write_bytes(b"\n".join([good[0], *noise, *good[1:]]))
    rows = [row for row in read_labels(str(path)) if isinstance(row, Row)]
    found = [row.path for row in rows if row.path.startswith("good")]
    assert found == [line.split(b"\t")[0].decode() for line in good]


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


def test_an_entry_of_mmocr_json_without_its_word_is_counted(tmp_path):
    good = {"img_path": "a.png", "instances": [{"text": "x"}]}
    entries = [{"img_path": "a"}, good, {"img_path": 1}, good | {"instances": [{}]}]
    path = write(tmp_path, json.dumps({"data_list": entries}))
    assert [(row.where, row[1]) for row in read_labels(path)] == [
        (f"{path}, data_list[0]", "path or label missing"),
        (f"{path}, data_list[1]", "a.png"),
        (f"{path}, data_list[2]", "path or label missing"),
        (f"{path}, data_list[3]", "path or label missing"),
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            '{"data_list": [{"img_path": "a"}]}',
            r"not one of 1 lines fits.*\[0\]: expected one instance",
        ),
        ('{"data_list": 5}', 'expected a list under "data_list"'),
        ('{"data_list": [', "not JSON, or cut off"),
    ],
)
def test_broken_mmocr_json_is_named(tmp_path, table, message):
    with pytest.raises(ValueError, match=rf"labels\.txt.*{message}"):
        list(read_labels(write(tmp_path, table)))


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
