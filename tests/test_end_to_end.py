"""Whole runs: what they leave behind, and what they say on the way."""

import dataclasses
import json
import logging

import cv2
import numpy as np
import pytest
from training import (
    TWELVE,
    assert_same_end,
    evaluated,
    everything_saved,
    metrics,
    on_each_update,
    saved_steps,
    tiny_config,
    write_words,
)

from robustscanner_jax import partition, train
from robustscanner_jax.recognizer import Recognizer


def test_a_run_ends_with_its_last_step_saved_and_so_many_before(straight):
    workdir, config, seen = straight
    assert saved_steps(workdir) == [2, 4, 6] and len(seen) == 6
    state = everything_saved(workdir, config)
    assert state[".step"] == 6 and state["batches"] == 6


def test_an_epoch_of_a_run_has_every_example_once(straight):
    _, _, seen = straight
    flat = [name for batch in seen for name in batch]
    for start_of in range(0, len(flat), 12):
        assert sorted(flat[start_of : start_of + 12]) == sorted(
            f"{i}.png" for i in range(12)
        )


def test_every_line_of_the_metrics_is_json_with_the_documented_values(straight):
    workdir, config, _ = straight
    lines = [line for line in metrics(workdir) if "accuracy/held" not in line]
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert line["loss"] > 0 and line["grad_norm"] > 0
        assert 0 <= line["token_accuracy"] <= 1
        for part in ("data_wait", "saving", "evaluating", "compiling"):
            assert 0 <= line[f"{part}_share"] <= 1
        assert 0 <= line["goodput"] <= 1 and line["compilations"] >= 0
        assert line["images_per_second"] > 0 and line["skipped_updates"] == 0
        assert line["learning_rate"] == pytest.approx(config.train.peak_lr)
    assert list(workdir.glob("events.out.tfevents.*"))


def test_the_table_scores_what_the_predictions_say(straight):
    workdir, _, _ = straight
    rows = (workdir / "predictions.tsv").read_text().splitlines()
    assert rows[0].split("\t") == ["id", "label", "prediction", "confidence", "set"]
    cells = [row.split("\t") for row in rows[1:]]
    assert [(c[0], c[1]) for c in cells] == [
        (f"{i}.png", word) for i, word in enumerate(TWELVE)
    ]
    table = json.loads((workdir / "accuracy.json").read_text())
    (row,) = table["sets"]
    assert (row["name"], row["words"], table["protocol"]) == ("held", 12, "36")
    assert row["accuracy"] == np.mean([c[1] == c[2] for c in cells])
    assert row["mean_confidence"] == pytest.approx(
        np.mean([float(c[3]) for c in cells]), abs=1e-6
    )
    assert "| held | 12 |" in (workdir / "accuracy.md").read_text()


def test_the_samples_are_a_picture(straight):
    workdir, _, _ = straight
    picture = cv2.imread(str(workdir / "samples" / "held.png"))
    assert picture is not None and picture.std() > 1


def test_the_folder_reads_as_the_averaged_network_of_the_last_step(straight, labels):
    workdir, config, _ = straight
    saved = everything_saved(workdir, config)
    recognizer = Recognizer.load(workdir, batch_size=8)
    kernel = recognizer.weights.variables["params"]["classifier"]["kernel"]
    name = "['classifier']['kernel']"
    np.testing.assert_array_equal(kernel, saved[f".ema_params{name}"])
    assert (kernel != saved[f".params{name}"]).any()
    readings = recognizer.read([labels.parent / f"{i}.png" for i in range(12)])
    rows = (workdir / "predictions.tsv").read_text().splitlines()[1:]
    assert [r.text for r in readings] == [row.split("\t")[2] for row in rows]


def table_without_speed(workdir):
    table = json.loads((workdir / "accuracy.json").read_text())
    table["extra"].pop("images_per_second")
    return table


def test_after_the_end_the_same_command_only_evaluates(
    quick, straight, monkeypatch, capsys
):
    workdir, config, _ = straight
    table = table_without_speed(workdir)

    def act(number, _):
        raise AssertionError("trained again")

    on_each_update(monkeypatch, act)
    before = metrics(workdir)
    train.run(config, workdir)
    assert "held" in capsys.readouterr().out
    (again,) = metrics(workdir)[len(before) :]
    assert again["accuracy/held"] == before[-1]["accuracy/held"]
    assert table_without_speed(workdir) == table
    assert saved_steps(workdir) == [2, 4, 6]


def test_evaluations_on_the_way_are_logged(quick, labels, tmp_path):
    config = tiny_config(
        labels, train__evaluate_every=2, train__steps=4, **evaluated(labels)
    )
    train.run(config, tmp_path)
    lines = [line for line in metrics(tmp_path) if "accuracy/held" in line]
    assert [line["step"] for line in lines] == [2, 4]
    (held,) = json.loads((tmp_path / "accuracy.json").read_text())["sets"]
    assert lines[-1]["accuracy/held"] == held["accuracy"]


def test_the_weights_of_the_best_evaluation_are_a_file_that_reads(
    quick, labels, tmp_path
):
    config = tiny_config(
        labels, train__evaluate_every=1, train__steps=4, **evaluated(labels)
    )
    train.run(config, tmp_path)
    reached = {
        line["step"]: line["accuracy/held"]
        for line in metrics(tmp_path)
        if "accuracy/held" in line
    }
    best = Recognizer.load(tmp_path / "best.safetensors", batch_size=8).weights
    assert best.card["step"] == max(reached, key=lambda step: reached[step])
    assert best.card["mean_accuracy"] == max(reached.values())
    assert best.card["accuracy_36"]["held"][0] == max(reached.values())


def test_without_room_for_the_best_weights_the_accuracies_are_still_logged(
    quick, labels, tmp_path, monkeypatch, caplog
):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(train, "keep_best", full)
    config = tiny_config(
        labels, train__evaluate_every=1, train__steps=2, **evaluated(labels)
    )
    train.run(config, tmp_path)
    assert caplog.text.count("best weights are not kept, going on: No space") == 2
    found = [x["step"] for x in metrics(tmp_path) if "accuracy/held" in x]
    assert found == [1, 2]


def test_best_weights_are_kept_where_the_config_asks_for_them(quick, labels, tmp_path):
    config = tiny_config(
        labels, train__steps=1, train__keep_best=False, **evaluated(labels)
    )
    train.run(config, tmp_path)
    assert not (tmp_path / "best.safetensors").exists()


def test_texts_are_compared_on_the_way_as_the_config_says(quick, labels, tmp_path):
    config = tiny_config(
        labels, train__steps=1, data__protocol="exact", **evaluated(labels)
    )
    train.run(config, tmp_path)
    table = json.loads((tmp_path / "accuracy.json").read_text())
    assert table["protocol"] == "exact"


@pytest.mark.parametrize(
    "changes",
    [
        {"data__train": ("nowhere.tsv",)},
        {"data__evaluate": ("held:nowhere.tsv",)},
        {"data__evaluate": ("nowhere.tsv",)},
    ],
)
def test_what_is_named_wrongly_is_said_before_anything_is_made(
    quick, labels, tmp_path, changes
):
    with pytest.raises((ValueError, OSError), match=r"nowhere\.tsv"):
        train.run(tiny_config(labels, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_is_rendered_before_the_weights_to_start_from_are_known_to_fit(
    quick, straight, labels, tmp_path
):
    config = tiny_config(
        labels,
        data__train=("rendered:easy?count=100000000",),
        data__store_rendered=True,
        train__init_weights="tiny",
    )
    with pytest.raises(ValueError, match="tiny: the weights are of another network"):
        train.run(config, tmp_path)
    assert not (tmp_path / "rendered").exists()


def test_an_evaluation_that_fails_on_the_way_does_not_end_the_run(
    quick, labels, tmp_path, monkeypatch, caplog
):
    config = tiny_config(
        labels, train__evaluate_every=2, train__steps=4, **evaluated(labels)
    )
    real, calls = train.evaluate.write_results, []

    def full_disk_at_first(evaluation, output):
        calls.append(evaluation.weights.step)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        real(evaluation, output)

    monkeypatch.setattr(train.evaluate, "write_results", full_disk_at_first)
    train.run(config, tmp_path)
    assert calls == [2, 4] and saved_steps(tmp_path)[-1] == 4
    assert "step 2 is not evaluated, going on: " in caplog.text


def test_a_process_that_does_not_write_reads_what_the_writing_one_reads(
    quick, labels, tmp_path, monkeypatch, capsys
):
    odd = write_words(tmp_path / "odd", ["!?", "..."])
    config = tiny_config(
        labels, train__steps=2, data__evaluate=(f"odd:{odd}", f"held:{labels}")
    )
    evaluations, folders = [], {True: tmp_path / "run", False: tmp_path / "other"}
    real = train._evaluate

    def by_both(setup, state, step, benchmarks):
        for writes, folder in folders.items():
            folder.mkdir(exist_ok=True)
            one = dataclasses.replace(setup, writes=writes, workdir=folder)
            evaluations.append(real(one, state, step, benchmarks))
        return evaluations[0]

    monkeypatch.setattr(train, "_evaluate", by_both)
    train.run(config, folders[True])
    assert capsys.readouterr().out.count("left out: odd: no words to score") == 1
    writing, other = evaluations
    assert writing.scores == other.scores and writing.unscored == other.unscored
    assert [score.name for score in other.scores] == ["held"]
    assert (folders[True] / "accuracy.json").is_file()
    assert not list(folders[False].iterdir())


def test_the_table_of_a_run_says_that_its_own_weights_were_read(straight):
    workdir, config, _ = straight
    extra = json.loads((workdir / "accuracy.json").read_text())["extra"]
    assert (extra["weights"], extra["step"]) == (".", config.train.steps)


def test_the_card_has_the_accuracy_of_its_own_weights_alone(quick, labels, tmp_path):
    config = tiny_config(labels, train__steps=2, **evaluated(labels))
    train.run(config, tmp_path)
    card = Recognizer.load(tmp_path, batch_size=8).weights.card
    assert card["step"] == 2 and card["accuracy_36"]["held"][1] == len(TWELVE)
    table = tmp_path / "accuracy.json"
    written = table.read_text()
    for own, other in (
        ('"step": 2', '"step": 1'),
        ('"weights": "."', '"weights": "tiny"'),
        ('"rotate_tall": null', '"rotate_tall": 1.0'),
        ('"look_closer": false', '"look_closer": true'),
        ('"rotate_tall": null', '"rotate_tall": null, "allowlist": "ab"'),
    ):
        assert own in written
        table.write_text(written.replace(own, other))
        card = Recognizer.load(tmp_path, batch_size=8).weights.card
        assert card["accuracy_36"] == {}, other


def test_what_was_learned_is_saved_before_it_is_evaluated(
    quick, labels, tmp_path, monkeypatch
):
    config = tiny_config(
        labels,
        train__steps=4,
        train__save_every=1_000,
        train__evaluate_every=2,
        **evaluated(labels),
    )

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_evaluate_on_the_way", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, tmp_path)
    assert (tmp_path / "checkpoints" / "2").is_dir()


def test_the_batch_must_suit_the_devices(labels, tmp_path):
    assert partition.make_mesh().size == 8
    config = tiny_config(labels, data__batch_size=12)
    with pytest.raises(ValueError, match="batch size 12 cannot be split over 8"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_trace_of_the_updates_asked_for_is_in_the_run_folder(quick, labels, tmp_path):
    config = tiny_config(labels, train__steps=3, train__profile=(2, 3))
    train.run(config, tmp_path)
    assert list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))


@pytest.mark.slow
def test_eight_words_are_learned_by_heart(quick, tmp_path):
    labels = write_words(tmp_path / "data")
    config = tiny_config(
        labels,
        train__steps=150,
        train__ema_decay=0.0,
        train__schedule="one_cycle",
        train__peak_lr=3e-3,
        train__save_every=150,
        train__log_every=50,
        **evaluated(labels),
    )
    train.run(config, tmp_path / "run")
    table = json.loads((tmp_path / "run" / "accuracy.json").read_text())
    assert table["sets"][0]["accuracy"] == 1.0
    assert metrics(tmp_path / "run")[-2]["loss"] < 0.1


@pytest.mark.slow
def test_workers_change_nothing_about_a_run(
    quick, straight, labels, tmp_path, monkeypatch
):
    (reference, _, expected), seen = straight, []
    on_each_update(monkeypatch, lambda _, ids: seen.append(ids))
    config = tiny_config(labels, data__num_workers=2)
    train.run(config, tmp_path)
    assert seen == expected
    assert_same_end(tmp_path, reference, config)


def test_the_log_says_what_is_trained_and_on_what(quick, labels, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "robustscanner_jax"):
        train.run(tiny_config(labels, train__steps=2), tmp_path)
    assert "nano: " in caplog.text and "float32, batch 8 on 1 cpu" in caplog.text
    assert f"data: {labels} (12)" in caplog.text
    assert "step 1: " in caplog.text and "s compiling" in caplog.text
