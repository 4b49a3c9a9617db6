"""Processes that would not train the same thing do not begin."""

import os
import sys
import textwrap

import numpy as np
import pytest
from training import REPOSITORY, finish

from launch import local
from robustscanner_jax import agreement, distributed

PROGRAM = """
    import sys
    from pathlib import Path
    import jax, numpy as np
    from ml_collections import ConfigDict
    from robustscanner_jax import agreement, distributed

    agreement.PATIENCE = 3.0
    distributed.initialise()
    index, folder = jax.process_index(), Path(sys.argv[1])
    sums = distributed.total(np.array([2**40 + index, 2**31, -5, 0], np.int64))
    print("sums", sums.tolist(), distributed.of_first(7 + index))

    def said(check, *arguments):
        try:
            return check(*arguments)
        except ValueError as error:
            return str(error)

    class Listing:
        folder = folder

        def __init__(self, *listings):
            self.listings = list(listings)

        def latest(self):
            return self.listings[0]

        def reload(self):
            if len(self.listings) > 1:
                self.listings.pop(0)

    print("one folder:", said(agreement.check_folder, folder))
    own = folder / str(index)
    own.mkdir()
    print("own folders:", said(agreement.check_folder, own))
    late = Listing(*([20, 30] if index else [30]))
    print("late listing:", said(agreement.newest_step, late))
    print("old listing:", said(agreement.newest_step, Listing(20 if index else 30)))
    print("none:", said(agreement.newest_step, Listing(None)))
    config = ConfigDict({"seed": 0})
    print("alike:", said(agreement.check_start, config, 3, [10, 20]))
    other = ConfigDict({"seed": index})
    print("other step:", said(agreement.check_start, config, 3 + index, [10]))
    print("other config:", said(agreement.check_start, other, 3, [10]))
    print("other data:", said(agreement.check_start, config, 3, [10, 20 - index]))
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Returns what each of two processes printed, by the name of the check."""
    folder = tmp_path_factory.mktemp("agreement")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder)]
        ended = finish(local.start(command, 2), timeout=300)
    outputs = [text for _, text in ended]
    assert [status for status, _ in ended] == [0, 0], "\n".join(outputs)
    assert not [name for name in os.listdir(folder) if name.startswith(".shared")]
    lines = [[x.partition(": ") for x in text.splitlines()] for text in outputs]
    return [{name: value for name, _, value in found} for found in lines]


def test_sums_of_all_processes_hold_more_than_32_bits(printed):
    expected = f"sums {[2**41 + 1, 2**32, -10, 0]} 7"
    assert all(expected in one for one in printed)


def test_a_folder_that_another_process_does_not_see_is_refused_by_all(printed):
    for one in printed:
        assert one["one folder"] == "None"
        assert "not one folder for all 2 processes" in one["own folders"]


def test_a_process_waits_for_the_step_that_the_first_one_sees(printed):
    for one in printed:
        assert one["late listing"] == "30" and one["none"] == "None"
        assert "as the newest, process 0 step 30" in one["old listing"]
    assert "process 1 sees step 20" in printed[1]["old listing"]


def test_processes_with_other_data_do_not_begin(printed):
    for one, length in zip(printed, (20, 19), strict=True):
        assert one["alike"] == "None"
        assert f"sources of [10, {length}] examples" in one["other data"]


def test_processes_with_another_step_or_config_do_not_begin(printed):
    for one, step in zip(printed, (3, 4), strict=True):
        assert f"has step {step} and sources of [10]" in one["other step"]
        assert "the processes do not begin alike" in one["other config"]


def test_one_process_agrees_with_itself(tmp_path):
    agreement.check_folder(tmp_path / "missing")
    values = np.array([2**40, -3], np.int64)
    assert distributed.total(values).tolist() == values.tolist()
    assert distributed.of_first(2**50) == 2**50 and distributed.same(b"x")
    assert not distributed.anywhere(False) and distributed.anywhere(True)
