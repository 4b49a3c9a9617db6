"""The ablation benchmark: what it asks of each run."""

import argparse
from pathlib import Path

import pytest

from benchmarks import ablation


def planned(**options):
    """Returns the runs by variant, flags alone, for two seeds of the full look."""
    defaults = argparse.Namespace(
        config="configs/tiny.py",
        steps=10,
        seeds="1,2",
        output=Path("out"),
        look="full",
        stored=0,
        benchmark=[],
        only=list(ablation.VARIANTS),
        rest=[],
    )
    defaults.__dict__.update(options)
    return ablation.plan(defaults)


@pytest.mark.parametrize("name", [n for n in ablation.VARIANTS if n != "all parts"])
def test_a_variant_differs_from_all_parts_in_what_its_name_says_alone(name):
    runs = planned()
    expected = {
        "position": ["model.use_position="],
        "context": ["model.use_hybrid="],
        "augmentation": ["data.augment=", "data.variants="],
        "random": ["rendered:no-random"],
        "fonts": ["rendered:few-fonts"],
        "textures": ["rendered:no-textures"],
    }
    for (_, everything), (_, lacking) in zip(
        runs["all parts"], runs[name], strict=True
    ):
        words = [word for word in expected if word in name.split()]
        said = [flag for word in words for flag in expected[word]]
        changed = [flag for flag in lacking if flag not in everything]
        assert said and changed
        assert all(any(flag in change for flag in said) for change in changed)
        assert all(any(flag in change for change in changed) for flag in said)


def test_two_runs_never_share_a_folder():
    folders = [folder for runs in planned().values() for folder, _ in runs]
    assert len(set(folders)) == len(folders) == 2 * len(ablation.VARIANTS)


def test_runs_at_the_same_time_share_the_cores_without_overlap(monkeypatch):
    monkeypatch.setattr(
        ablation.os, "sched_getaffinity", lambda pid: {4, 5, 6, 7, 9}, raising=False
    )
    shares = ablation.shares_of_cores(2)
    assert sorted(map(sorted, shares)) == [[4, 6, 9], [5, 7]]
    crowded = ablation.shares_of_cores(7)
    assert len(crowded) == 7 and all(len(share) == 1 for share in crowded)


def test_variants_that_the_look_does_not_have_end_in_one_sentence(monkeypatch, capsys):
    asked = ["ablation", "--steps=1", "--output=out", "--look=easy", "--only"]
    monkeypatch.setattr("sys.argv", [*asked, "16 fonts"])
    with pytest.raises(SystemExit):
        ablation.main()
    assert "--look=easy has none of ['16 fonts']" in capsys.readouterr().err


def test_a_line_of_the_table_gives_the_mean_and_every_seed():
    runs = [{"words": 0.5, "RandText": 0.25}, {"words": 0.6, "RandText": 0.35}]
    assert ablation.row("16 fonts", runs) == (
        "| 16 fonts | 55.0 (50.0, 60.0) | 30.0 (25.0, 35.0) |"
    )
