"""The accuracy table, its published columns and the files it is kept in."""

import dataclasses
import json

import pytest

from robustscanner_jax.accuracy import (
    render_markdown,
    render_terminal,
    to_json,
    write_accuracy,
)
from robustscanner_jax.metrics import score_set
from robustscanner_jax.predictions import Prediction
from robustscanner_jax.published import (
    PUBLISHED,
    SIX_SETS,
    is_contextless,
    split_name,
)

SIZES = {"IIIT5K": 3000, "SVT": 647, "IC13": 1015, "IC15": 2077, "SVTP": 645}
SIZES["CUTE80"] = 288


def score(name, words, wrong=10, skipped=0):
    labels = ["b"] * wrong + ["a"] * (words - wrong) + ["!"] * skipped
    return score_set(name, ["a"] * len(labels), labels, [0.5] * len(labels), "36")


def six_scores():
    return [score(name, size) for name, size in SIZES.items()]


def cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("IC13", 857, "IC13-857"),
        ("IC13", 1015, "IC13-1015"),
        ("ic13_1015", 1015, "IC13-1015"),
        ("IC13-857", 1015, "IC13-1015"),  # the number of records decides
        ("ICDAR2013", 1095, "IC13-1095"),
        ("icdar_2015", 2077, "IC15-2077"),
        ("IC15", 1811, "IC15-1811"),
        ("iiit5k-words", 3000, "IIIT5K"),
        ("IIIT5k_3000", 3000, "IIIT5K"),
        ("svt", 647, "SVT"),
        ("SVTP", 645, "SVTP"),
        ("SVT-P", 639, "SVTP-639"),
        ("SVTP_645", 645, "SVTP"),
        ("CT80", 288, "CUTE80"),
        ("cute80_288", 288, "CUTE80"),
        ("IC15", 2076, "IC15 (not a published split)"),
        ("SVT", 645, "SVT (not a published split)"),
        ("dev", 647, "dev"),
        ("mysvt", 647, "mysvt"),
        ("288", 288, "288"),
    ],
)
def test_a_split_is_recognised_from_the_size(name, size, expected):
    assert split_name(name, size) == expected


def test_published_means_are_those_of_their_own_numbers():
    for row in PUBLISHED:
        if row.by_split:
            mean = sum(row.by_split[split] for split in SIX_SETS) / 6
            assert mean == pytest.approx(row.mean_of_six, abs=0.006), row.name


def test_skipped_words_belong_to_the_size_that_names_the_split():
    table = render_terminal([score("IC15", 2070, skipped=7)], "36")
    assert cells(table.splitlines()[2])[:3] == ["IC15-2077", "2070", "7"]
    assert "skipped: labels of which the protocol leaves nothing" in table


def test_the_six_sets_stand_beside_every_published_row():
    lines = render_terminal(six_scores(), "36").splitlines()
    names = ["paper*", "MMOCR 1.x*", "MMOCR 1.x TTA*", "MMOCR 0.x*"]
    names += ["PaddleOCR*", "MindOCR*"]
    assert cells(lines[0])[-6:] == names
    svt = ["SVT", "647", "0", "98.45", "97.18-99.16", "98.45", "50.00", "48.45"]
    assert cells(lines[3]) == [*svt, "88.10", "90.11", "90.11", "89.20", "92.12"]
    means = [cells(line) for line in lines if line.startswith("mean")]
    published = ["87.52", "87.08", "87.51", "87.63", "87.77", "87.87"]
    assert means == [
        ["mean over the six sets", "7672", "0", "98.61", *published],
        ["mean over words", "7672", "0", "99.22"],
    ]
    assert "columns with a *: published accuracy in percent" in "\n".join(lines)


def test_another_set_gets_both_means_beside_that_of_the_six():
    lines = render_terminal([*six_scores(), score("dev", 20)], "36").splitlines()
    means = [cells(line) for line in lines if line.startswith("mean")]
    assert [row[0] for row in means] == [
        "mean over the six sets",
        "mean over sets",
        "mean over words",
    ]
    assert [row[3] for row in means] == ["98.61", "91.66", "99.09"]


def test_a_published_number_stands_beside_its_own_split_only():
    table = render_terminal([score("IC13", 857), score("IC15", 500)], "36")
    lines = table.splitlines()
    assert cells(lines[0])[-1] == "MindOCR*"  # the only one with the 857 split
    assert cells(lines[2])[-1] == "95.22"
    assert cells(lines[3])[0] == "IC15 (not a published split)"
    assert cells(lines[3])[-1] == "48.00"  # the ECE: no published number
    assert "paper" not in table and "87." not in table


def test_sets_of_other_names_get_no_published_column():
    table = render_terminal([score("dev", 647)], "36")
    assert "*" not in table


def test_a_table_says_at_once_that_tall_crops_were_turned():
    plain = score("dev", 20)
    turned = [
        dataclasses.replace(plain, turned=7, turned_won=3),
        dataclasses.replace(plain, name="other", turned=0, turned_won=0),
    ]
    extra = {"rotate_tall": 1.0}
    table = render_terminal(turned, "36", extra).splitlines()
    assert cells(table[0])[5:7] == ["turned", "turned won"]
    assert [cells(line)[5:7] for line in table[2:4]] == [["7", "3"], ["0", "0"]]
    assert "turned: tall crops, also read at 90 and 270 degrees; won" in str(table)
    assert table[-1] == "tall: over 1 times as tall as wide (--rotate_tall)"
    markdown = render_markdown(turned, "36", extra)
    assert "| turned | turned won |" in markdown and "- tall: over 1 times" in markdown
    sets = to_json(turned, "36", extra)["sets"]
    assert [(s["turned"], s["turned_won"]) for s in sets] == [(7, 3), (0, 0)]
    assert to_json([plain], "36")["sets"][0]["turned"] is None
    assert "turned" not in render_terminal([plain], "36", {"rotate_tall": None})


def test_a_table_counts_only_the_views_that_were_asked_for():
    closer = dataclasses.replace(score("dev", 20), closer=9, closer_won=4)
    table = render_terminal([closer], "36", {"look_closer": True})
    assert "turned" not in table
    assert cells(table.splitlines()[0])[5:7] == ["closer", "closer won"]
    assert cells(table.splitlines()[2])[5:7] == ["9", "4"]
    assert "probability below 0.9, read again without their edges" in table
    assert table.count("--look_closer") == 1
    both = dataclasses.replace(closer, turned=2, turned_won=1)
    header, _, row = render_terminal([both], "36").splitlines()[:3]
    names = ["turned", "turned won", "closer", "closer won"]
    assert cells(header)[5:9] == names
    assert cells(row)[5:9] == ["2", "1", "9", "4"]
    plain = render_terminal([score("dev", 20)], "36", {"look_closer": False})
    assert "closer" not in plain


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("images_per_second", 35.7341, "35.7 images a second"),
        ("images_per_second", 4.0, "4 images a second"),
        ("images_per_second", 17690.4, "17,690 images a second"),
        ("step", 4000, "update 4000"),
        ("weights", "runs/small", "weights: runs/small"),
        ("allowlist", "01", "only these characters may be read: 01"),
        ("of_a_user", 0.12345, "of a user: 0.1235"),
    ],
)
def test_facts_are_words_below_the_table_and_keys_in_json(key, value, expected):
    scores, extra = [score("dev", 30)], {key: value}
    assert render_terminal(scores, "36", extra).endswith(f"\n{expected}")
    assert render_markdown(scores, "36", extra).endswith(f"\n- {expected}")
    assert to_json(scores, "36", extra)["extra"] == extra


def test_a_contextless_set_is_marked_in_every_table():
    scores = [dataclasses.replace(score("RandText", 20), contextless=True)]
    scores.append(score("dev", 20))
    assert cells(render_terminal(scores, "36").splitlines()[2])[0] == (
        "RandText (contextless)"
    )
    assert "| RandText (contextless) | 20 |" in render_markdown(scores, "36")
    sets = to_json(scores, "36")["sets"]
    assert [s["contextless"] for s in sets] == [True, False]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("RandText", True),
        ("rand_text", True),
        ("rendered/randtext-train-0-1000/0", True),
        ("Union14M-Contextless", True),
        ("text", False),
        ("random", False),
        ("IIIT5K", False),
    ],
)
def test_contextless_sets_are_known_by_name(name, expected):
    assert is_contextless(name) == expected


def test_a_set_given_twice_makes_no_mean_of_six():
    table = render_terminal([*six_scores(), score("svt", 647)], "36")
    assert "six sets" not in table and "87.77" not in table


@pytest.mark.parametrize("protocol", ["62", "94", "exact"])
def test_a_case_sensitive_protocol_gets_no_published_column(protocol):
    table = render_terminal(six_scores(), protocol)
    assert "*" not in table
    assert f"protocol {protocol}: " in table
    assert to_json(six_scores(), protocol)["published_percent"] == []


def test_the_markdown_table_holds_the_same_cells_and_escapes_bars():
    scores = [*six_scores(), score("a|b", 20)]
    lines = render_markdown(scores, "36", {"device": "8 x TPU v5e"}).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert table[1].startswith("| --- | ---: |")
    assert table[2].startswith("| IIIT5K | 3000 | 0 | 99.67 | 99.39-99.82 |")
    assert table[8].startswith(r"| a\|b | 20 | 0 | 50.00 |")
    assert lines[-1] == "- device: 8 x TPU v5e"


def test_the_json_holds_every_number_unrounded():
    scores = six_scores()
    table = to_json(scores, "36", {"rotation": True})
    assert table["protocol"] == "36"
    assert table["sets"][2]["split"] == "IC13-1015"
    assert table["sets"][2]["accuracy"] == scores[2].accuracy
    assert table["sets"][2]["size"] == 1015
    assert table["mean_of_six"] == table["mean_over_sets"]
    assert table["mean_over_words"] == (7672 - 60) / 7672
    assert [row["name"] for row in table["published_percent"]][4] == "PaddleOCR"
    assert table["extra"] == {"rotation": True}
    assert to_json(scores[:3], "36")["mean_of_six"] is None


def test_the_files_are_written_whole(tmp_path):
    words = [
        Prediction("a/1.png", "tab\there", "line\nbreak", 0.25, "dev"),
        Prediction("a/2.png", "back\\slash", "\ud800", 1.0, "dev"),
    ]
    folder = tmp_path / "new" / "folder"
    scores = [score("dev", 20)]
    write_accuracy(folder, scores, "36", {"k": "v"}, predictions=iter(words))
    assert sorted(path.name for path in folder.iterdir()) == [
        "accuracy.json",
        "accuracy.md",
        "predictions.tsv",
    ]
    table = json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
    assert table == to_json(scores, "36", {"k": "v"})
    markdown = (folder / "accuracy.md").read_text(encoding="utf-8")
    assert markdown == render_markdown(scores, "36", {"k": "v"}) + "\n"
    assert (folder / "predictions.tsv").read_bytes().decode().split("\n") == [
        "id\tlabel\tprediction\tconfidence\tset",
        "a/1.png\ttab\\there\tline\\nbreak\t0.250000\tdev",
        "a/2.png\tback\\\\slash\t\\ud800\t1.000000\tdev",
        "",
    ]


def test_a_failure_leaves_the_files_of_the_run_before(tmp_path):
    write_accuracy(tmp_path, [score("dev", 20)], "36")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def failing():
        yield Prediction("a", "b", "c", 0.5, "dev")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_accuracy(tmp_path, [score("dev", 30)], "36", predictions=failing())
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_accuracy(tmp_path, [score("dev", 30)], "36", {"speed": float("nan")})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
