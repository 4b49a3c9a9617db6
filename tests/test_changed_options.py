"""Options that change between the pieces of a run: the next piece goes on."""

import numpy as np
from training import everything_saved, metrics, saved_steps, tiny_config

from robustscanner_jax import train
from robustscanner_jax.recognizer import Recognizer

ON = dict(train__clip_norm=5.0, train__weight_decay=0.0, train__ema_decay=0.5)
OFF = dict(train__clip_norm=0.0, train__weight_decay=0.1, train__ema_decay=0.0)


def test_a_run_goes_on_when_clipping_decay_and_average_are_switched(
    quick, labels, tmp_path, caplog
):
    caplog.set_level("INFO", logger="robustscanner_jax")
    kernel, moment = "['classifier']['kernel']", ".opt_state[1][0].mu"
    for steps, options in ((2, ON), (4, OFF), (6, ON)):
        config = tiny_config(labels, train__steps=steps, **options)
        train.run(config, tmp_path)
        saved = everything_saved(tmp_path, config)
        assert saved_steps(tmp_path)[-1] == steps
        # Adam went on: it counts every update, and never starts anew.
        assert saved[".opt_state[1][0].count"] == steps
        assert saved[f"{moment}{kernel}"].any()
        network = Recognizer.load(tmp_path, batch_size=8).weights.variables["params"]
        read = "ema_params" if options is ON else "params"
        np.testing.assert_array_equal(
            network["classifier"]["kernel"], saved[f".{read}{kernel}"]
        )
    assert [line["step"] for line in metrics(tmp_path)] == [2, 4, 6]
    assert "the average of the parameters ends here" in caplog.text
    assert "the average of the parameters begins here" in caplog.text
