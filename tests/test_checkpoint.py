"""Checkpoints: bit for bit, complete or not there, and never of another network."""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from helpers import eloquent

from robustscanner_jax import distributed, partition
from robustscanner_jax.checkpoint import Checkpoints, DataPosition, NotSaved
from robustscanner_jax.checkpoint_reading import ATTEMPTS, restore_variables
from robustscanner_jax.optim import decayed, make_optimizer
from robustscanner_jax.steps import TrainState

TX = make_optimizer(clip_norm=5.0, weight_decay=0.0)
POSITION = DataPosition(batches=7, examples={"none": 50, "too_long": 6})


def noise(tree, seed):
    """Returns random values of the same shapes, so that no two trees are alike."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    drawn = [
        jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        else leaf + seed
        for leaf in leaves
    ]
    return jax.tree.unflatten(structure, drawn)


@functools.cache
def state_of(step: int, ema: bool = False, network: str = "small") -> TrainState:
    """Returns a state that no training made, small: one branch of the network."""
    params = {"fusion": eloquent()["params"]["fusion"]}
    if network == "other":
        params = jax.tree.map(lambda x: jnp.zeros((*x.shape[:-1], 3)), params)
    stats = {"stem": {"mean": jnp.zeros(4), "var": jnp.ones(4)}}
    opt_state = TX.init(params)
    state = TrainState(
        step=jnp.int32(0),
        params=noise(params, step),
        batch_stats=noise(stats, step + 100),
        opt_state=noise(opt_state, step + 200),
        ema_params=noise(params, step + 300) if ema else {},
        skipped_in_row=jnp.int32(2),
    )
    mesh = partition.make_mesh(jax.devices()[:1])
    return jax.device_put(
        state.replace(step=jnp.int32(step)), partition.replicated(mesh)
    )


def shapes(state, devices=1):
    return partition.replicated_shapes(
        jax.eval_shape(lambda: state), partition.make_mesh(jax.devices()[:devices])
    )


def assert_same_bits(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.fixture
def checkpoints(tmp_path):
    found = Checkpoints(tmp_path, keep=2)
    yield found
    found.close()


def save(checkpoints, *states, position=POSITION):
    for state in states:
        checkpoints.save(state, position)
    checkpoints.wait()


@pytest.mark.parametrize("ema", [False, True])
def test_what_is_saved_comes_back_bit_for_bit(checkpoints, tmp_path, ema):
    state = state_of(7, ema)
    save(checkpoints, state)
    again = Checkpoints(tmp_path, keep=2)
    assert again.latest() == 7
    restored, position = again.restore(shapes(state))
    again.close()
    assert_same_bits(restored, state)
    assert position == POSITION


def test_a_checkpoint_of_one_device_is_restored_onto_eight(checkpoints):
    state = state_of(7)
    save(checkpoints, state)
    restored, _ = checkpoints.restore(shapes(state, devices=8))
    assert_same_bits(restored, state)
    assert all(len(x.sharding.device_set) == 8 for x in jax.tree.leaves(restored))


def test_saving_goes_on_while_the_state_is_donated(checkpoints):
    mesh = partition.make_mesh(jax.devices()[:1])
    state = state_of(7)
    expected = jax.tree.map(np.asarray, state)
    copy = jax.tree.map(jnp.copy, state)
    step = partition.jit_step(
        lambda s, b, _: (jax.tree.map(lambda x: x * 0, s), b), mesh
    )
    checkpoints.save(copy, POSITION)
    step(copy, {"x": jnp.zeros(1)}, np.float32(0))
    checkpoints.wait()
    restored, _ = checkpoints.restore(shapes(state))
    assert_same_bits(jax.tree.map(np.asarray, restored), expected)


def variables_of(tmp_path, like):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.eval_shape(lambda: like.variables)
    return restore_variables(tmp_path, wanted, sharding=sharding)


@pytest.mark.parametrize("ema", [False, True])
def test_reading_gets_the_averaged_parameters_where_there_are_any(
    checkpoints, tmp_path, ema
):
    state = state_of(7, ema)
    save(checkpoints, state)
    variables, step = variables_of(tmp_path, state)
    assert step == 7
    assert_same_bits(variables["params"], state.ema_params if ema else state.params)
    assert_same_bits(variables["batch_stats"], state.batch_stats)


def test_the_newest_step_is_used_and_so_many_are_kept(checkpoints, tmp_path):
    save(checkpoints, *(state_of(step) for step in (1, 2, 3)))
    kept = {p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()}
    assert kept == {"2", "3"}
    restored, _ = checkpoints.restore(shapes(state_of(3)))
    assert_same_bits(restored, state_of(3))


def test_a_folder_that_was_not_finished_is_not_there(checkpoints, tmp_path):
    save(checkpoints, state_of(1), state_of(2))
    checkpoints.close()
    folder = tmp_path / "checkpoints"
    # As a process leaves it that is killed while it writes.
    (folder / "2").rename(folder / "2.orbax-checkpoint-tmp-17")
    again = Checkpoints(tmp_path, keep=2)
    assert again.latest() == 1
    restored, _ = again.restore(shapes(state_of(1)))
    assert_same_bits(restored, state_of(1))
    assert variables_of(tmp_path, state_of(1))[1] == 1
    save(again, state_of(2))
    again.close()
    assert {p.name for p in folder.iterdir()} == {"1", "2"}


def test_a_checkpoint_of_another_network_is_one_clear_sentence(checkpoints, tmp_path):
    save(checkpoints, state_of(7))
    other = state_of(7, network="other")
    for restore in (
        lambda: checkpoints.restore(shapes(other)),
        lambda: variables_of(tmp_path, other),
    ):
        with pytest.raises(ValueError) as caught:
            restore()
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}/checkpoints: checkpoint 7 does not fit")
        assert message.endswith("use the config of the run, or another --workdir")
        assert "\n" not in message and len(message) < 600


def test_an_average_switched_on_begins_at_the_parameters(checkpoints):
    before = state_of(7)
    save(checkpoints, before)
    state, _ = checkpoints.restore(shapes(state_of(7, ema=True)))
    assert_same_bits(state.ema_params, before.params)
    assert_same_bits(state.replace(ema_params={}), before)
    # Not the same memory: the state is donated, and each buffer once.
    for one, other in zip(
        jax.tree.leaves(state.ema_params), jax.tree.leaves(state.params), strict=True
    ):
        assert one.unsafe_buffer_pointer() != other.unsafe_buffer_pointer()
        assert one.sharding == other.sharding


def test_an_average_switched_off_is_dropped_and_the_parameters_stay(checkpoints):
    before = state_of(7, ema=True)
    save(checkpoints, before)
    state, _ = checkpoints.restore(shapes(state_of(7)))
    assert_same_bits(state, before.replace(ema_params={}))


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("decay", [False, True])
def test_a_checkpoint_of_earlier_versions_fits_whatever_is_on_now(
    checkpoints, clip, decay, ema
):
    """They left out of the optimiser's state what was off."""
    adam = (
        optax.adamw(lambda _: 1e-3, weight_decay=0.1, mask=decayed)
        if decay
        else optax.adam(lambda _: 1e-3)
    )
    tx = optax.chain(*[optax.clip_by_global_norm(5.0)] * clip, adam)
    now = state_of(7)
    state = now.replace(opt_state=noise(tx.init(now.params), 5))
    save(checkpoints, state)
    found, position = checkpoints.restore(shapes(state_of(7, ema=ema)))
    assert position == POSITION
    assert jax.tree.structure(found.opt_state) == jax.tree.structure(now.opt_state)
    assert_same_bits(jax.tree.leaves(found.opt_state), jax.tree.leaves(state.opt_state))
    assert_same_bits(found.params, state.params)


def test_another_optimiser_is_refused(checkpoints):
    state = state_of(7)
    tx = optax.sgd(1e-3, momentum=0.9)
    save(checkpoints, state.replace(opt_state=tx.init(state.params)))
    with pytest.raises(ValueError, match="checkpoint 7 does not fit this config"):
        checkpoints.restore(shapes(state))


def test_without_a_checkpoint_the_folder_is_named(checkpoints, tmp_path):
    assert checkpoints.latest() is None
    with pytest.raises(ValueError, match="/checkpoints: no complete checkpoint"):
        checkpoints.restore(shapes(state_of(1)))
    with pytest.raises(ValueError, match="/checkpoints: no complete checkpoint"):
        variables_of(tmp_path, state_of(1))
    with pytest.raises(ValueError, match="not found; this run has saved nothing yet"):
        variables_of(tmp_path / "elsewhere", state_of(1))
    assert not (tmp_path / "elsewhere").exists()


def damage(path, how):
    size = path.stat().st_size
    if how == "gone":
        path.unlink()
    elif how == "cut":
        os.truncate(path, size // 2)
    else:  # a bit flips where the file is densest
        content = bytearray(path.read_bytes())
        content[size // 2] ^= 1 << (size % 8)
        path.write_bytes(content)


@pytest.mark.usefixtures("orbax_reads_left_over")
@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
def test_a_damaged_file_leads_to_the_checkpoint_before_or_does_no_harm(
    tmp_path, how, caplog
):
    whole = tmp_path / "whole"
    with contextlib.closing(Checkpoints(whole, keep=2)) as checkpoints:
        save(checkpoints, state_of(6), state_of(7))
    newest = whole / "checkpoints" / "7"
    files = sorted(p.relative_to(whole) for p in newest.rglob("*") if p.is_file())
    passed_over = []
    for number, name in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(whole, copy)
        damage(copy / name, how)
        caplog.clear()
        with contextlib.closing(Checkpoints(copy, keep=2)) as again:
            state, _ = again.restore(shapes(state_of(7)))
            step = int(state.step)
            assert_same_bits(state, state_of(step))
            if step == 6:
                passed_over.append(name)
                assert "checkpoint 7 is damaged" in caplog.text
                assert (copy / "checkpoints" / "7.damaged").is_dir()
                save(again, state_of(7))  # as training does when it gets there again
            state, _ = again.restore(shapes(state_of(7)))
            assert_same_bits(state, state_of(7))
    # The arrays themselves are in the largest file of each part.
    for part in ("network", "training"):
        largest = max(
            (name for name in files if name.parts[2] == part),
            key=lambda name: (whole / name).stat().st_size,
        )
        assert largest in passed_over


@pytest.mark.usefixtures("orbax_reads_left_over")
def test_reading_passes_over_a_damaged_checkpoint_and_leaves_it_alone(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        save(checkpoints, state_of(6), state_of(7))
    folder = tmp_path / "checkpoints"
    damage(folder / "7" / "data" / "metadata", "cut")
    variables, step = variables_of(tmp_path, state_of(7))
    assert step == 6
    assert_same_bits(variables["params"], state_of(6).params)
    assert {p.name for p in folder.iterdir()} == {"6", "7"}


@pytest.mark.usefixtures("orbax_reads_left_over")
def test_nothing_starts_anew_where_every_checkpoint_is_damaged(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        save(checkpoints, state_of(6), state_of(7))
    for step in "67":
        damage(tmp_path / "checkpoints" / step / "data" / "metadata", "gone")
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as again:
        with pytest.raises(ValueError, match="every checkpoint is damaged: 7 ") as info:
            again.restore(shapes(state_of(7)))
    assert "\n" not in str(info.value)


def fail_elsewhere(monkeypatch, attempts: int) -> None:
    """Lets another process fail to read a checkpoint that often."""
    others = iter([True] * attempts)
    monkeypatch.setattr(
        distributed, "anywhere", lambda here: here or next(others, False)
    )


def test_all_processes_try_again_where_one_cannot_read(checkpoints, monkeypatch):
    save(checkpoints, state_of(6), state_of(7))
    fail_elsewhere(monkeypatch, attempts=ATTEMPTS - 1)
    assert int(checkpoints.restore(shapes(state_of(7)))[0].step) == 7


@pytest.mark.usefixtures("orbax_reads_left_over")
def test_all_processes_fall_back_where_one_cannot_read(tmp_path, monkeypatch, caplog):
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        save(checkpoints, state_of(6), state_of(7))
        fail_elsewhere(monkeypatch, attempts=ATTEMPTS)
        assert int(checkpoints.restore(shapes(state_of(7)))[0].step) == 6
    assert "7 is damaged (another process cannot read it)" in caplog.text
    assert (tmp_path / "checkpoints" / "7.damaged").is_dir()


def test_an_error_that_passes_is_no_damage(checkpoints, monkeypatch):
    save(checkpoints, state_of(6), state_of(7))
    restore, calls = ocp.CheckpointManager.restore, []

    def failing_once(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError("stale file handle")
        return restore(*arguments, **keywords)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", failing_once)
    assert int(checkpoints.restore(shapes(state_of(7)))[0].step) == 7


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("not yours"),
        MemoryError("too large"),
        RuntimeError("RESOURCE_EXHAUSTED: memory"),
        RuntimeError("PERMISSION_DENIED: not yours"),
    ],
)
def test_what_is_no_damage_is_raised_as_it_is(checkpoints, monkeypatch, error):
    save(checkpoints, state_of(6), state_of(7))

    def failing(*arguments, **keywords):
        raise error

    monkeypatch.setattr(ocp.CheckpointManager, "restore", failing)
    with pytest.raises(type(error), match=str(error)):
        checkpoints.restore(shapes(state_of(7)))
    assert checkpoints.latest() == 7


def test_a_checkpoint_from_before_digests_is_read_with_a_warning(tmp_path, caplog):
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        save(checkpoints, state_of(7))
    path = tmp_path / "checkpoints" / "7" / "data" / "metadata"
    kept = json.loads(path.read_text(encoding="utf-8"))
    del kept["digests"], kept["crc32"]
    path.write_text(json.dumps(kept), encoding="utf-8")
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as again:
        state, position = again.restore(shapes(state_of(7)))
    assert_same_bits(state, state_of(7))
    assert position == POSITION and "from before digests" in caplog.text


@pytest.mark.usefixtures("orbax_reads_left_over")
@pytest.mark.parametrize(
    ("written", "changed"),
    [('"batches": 7', '"batches": 3'), ('"crc32"', '"crc31"')],
    ids=["another position", "digests without their checksum"],
)
def test_a_data_position_that_changed_on_disk_is_noticed(
    tmp_path, caplog, written, changed
):
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        save(checkpoints, state_of(6), state_of(7))
    path = tmp_path / "checkpoints" / "7" / "data" / "metadata"
    kept = path.read_text(encoding="utf-8")
    path.write_text(kept.replace(written, changed), encoding="utf-8")
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as again:
        assert int(again.restore(shapes(state_of(7)))[0].step) == 6
    assert "its data position is not what was saved" in caplog.text


def test_without_room_nothing_is_written_and_the_sentence_has_both_sizes(
    checkpoints, tmp_path, monkeypatch
):
    save(checkpoints, state_of(6))
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NotSaved, match=r"takes up to .* MB, and 0 MB are free"):
        checkpoints.save(state_of(7), POSITION)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["6"]
    monkeypatch.undo()
    save(checkpoints, state_of(8))
    assert checkpoints.latest() == 8


@pytest.fixture
def small_disk(tmp_path):
    """Returns a folder on a file system of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command).returncode:
        pytest.skip("this user cannot mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.usefixtures("orbax_reads_left_over")
@pytest.mark.parametrize("noticed_before", [True, False])
def test_a_full_disk_costs_the_newest_checkpoint_alone(
    small_disk, monkeypatch, noticed_before
):
    if not noticed_before:  # as when another program takes the room meanwhile
        monkeypatch.setattr("robustscanner_jax.checkpoint.OVERHEAD", 0.0)
    with contextlib.closing(Checkpoints(small_disk, keep=2)) as checkpoints:
        save(checkpoints, state_of(1))
        filler = small_disk / "filler"
        room = shutil.disk_usage(small_disk).free
        filler.write_bytes(bytes(room - 100_000))
        with pytest.raises(NotSaved, match=r"free|No space left"):
            save(checkpoints, state_of(2))
        assert checkpoints.latest() == 1
        restored, _ = checkpoints.restore(shapes(state_of(1)))
        assert_same_bits(restored, state_of(1))
        filler.unlink()
        save(checkpoints, state_of(3))
    assert {p.name for p in (small_disk / "checkpoints").iterdir()} == {"1", "3"}
    with contextlib.closing(Checkpoints(small_disk, keep=2)) as again:
        assert_same_bits(again.restore(shapes(state_of(3)))[0], state_of(3))


@pytest.mark.usefixtures("orbax_reads_left_over")
def test_a_failed_save_costs_neither_the_next_nor_the_retention(
    small_disk, monkeypatch, caplog
):
    monkeypatch.setattr("robustscanner_jax.checkpoint.OVERHEAD", 0.0)
    with contextlib.closing(Checkpoints(small_disk, keep=2)) as checkpoints:
        filler = small_disk / "filler"
        for step in (1, 5, 9):
            save(checkpoints, state_of(step), state_of(step + 1))
            filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 50_000))
            checkpoints.save(state_of(step + 2), POSITION)  # fails in the background
            while checkpoints._manager.is_saving_in_progress():
                time.sleep(0.01)
            filler.unlink()
            checkpoints.save(state_of(step + 3), POSITION)
            checkpoints.wait()
            folder = small_disk / "checkpoints"
            assert {p.name for p in folder.iterdir()} == {str(step + 1), str(step + 3)}
    assert "the checkpoint before this one was not saved" in caplog.text


def test_another_shape_is_told_from_the_one_that_was_saved(checkpoints):
    save(checkpoints, state_of(7, network="other"))
    with pytest.raises(ValueError, match=r"expected shape \(\d{2}.*\), got \(3,\)"):
        checkpoints.restore(shapes(state_of(7)))
