"""Measures the word generator: pictures a second, and the share of each stage.

Run: python -m benchmarks.render --count=2000
"""

import argparse
import collections
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from data_prep.synthetic import (
    background,
    colour,
    compose,
    degrade,
    geometry,
    glyphs,
    neighbours,
    presets,
    render,
    visibility,
    words,
)
from data_prep.synthetic.fonts import Fonts

# Functions that the renderer calls, under the stage that they belong to.
STAGES: dict[str, list[tuple[Any, str]]] = {
    "text": [(words, "draw_text")],
    "font": [(Fonts, "draw")],
    "glyphs": [
        (glyphs, "draw_mask"),
        (glyphs, "scale_and_pad"),
        (glyphs, "add_style"),
    ],
    "geometry": [
        (geometry, "draw_bend"),
        (geometry, "inverse_map"),
        (geometry, "warp"),
        (geometry, "draw_box"),
    ],
    "colour": [(colour, "draw_pair"), (colour, "to_grey")],
    "background": [(background, "draw_background")],
    "neighbours": [(neighbours, "draw_neighbours")],
    "foreground": [(compose, "draw_foreground")],
    "light": [(degrade, "apply_light"), (degrade, "to_image")],
    "camera": [(degrade, "apply_camera")],
    "visibility": [
        (visibility, "find_regions"),
        (visibility, "is_visible"),
        (visibility, "is_visible_throughout"),
        (visibility, "resize_regions"),
    ],
    "JPEG": [(degrade, "encode_jpeg")],
}


@contextmanager
def timed(totals: dict[str, float]) -> Iterator[None]:
    """Adds the seconds spent in each stage to `totals` inside the block."""
    originals = []
    running = []  # a stage inside a stage counts once

    def wrap(function: Callable, stage: str) -> Callable:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if running:
                return function(*args, **kwargs)
            running.append(stage)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                running.clear()
                totals[stage] += time.perf_counter() - start

        return wrapper

    for stage, functions in STAGES.items():
        for owner, name in functions:
            function = getattr(owner, name)
            originals.append((owner, name, function))
            setattr(owner, name, wrap(function, stage))
    try:
        yield
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints pictures a second of one core, and a table of stages."""
    parser = argparse.ArgumentParser(description="Measures the word generator.")
    parser.add_argument("--count", type=int, default=2000, help="pictures to time")
    parser.add_argument("--warmup", type=int, default=500, help="pictures before that")
    parser.add_argument("--preset", default="full", choices=presets.PRESETS)
    flags = parser.parse_args(arguments)
    chosen: Any = presets.get_settings(flags.preset)
    chosen.degrade.jpeg_share = 0.0  # `render` alone: JPEG is timed by itself below
    renderer = render.WordRenderer(chosen, seed=1)
    start = time.perf_counter()
    renderer.render(0)
    print(f"start: {time.perf_counter() - start:.2f} s (words, fonts, textures)")
    last = flags.warmup + flags.count
    for index in range(flags.warmup):
        renderer.render(index)
    start = time.process_time()
    for index in range(flags.warmup, last):
        renderer.render(index)
    seconds = time.process_time() - start
    print(f"{flags.preset}: {flags.count / seconds:.0f} pictures/s on one core")

    totals: dict[str, float] = collections.defaultdict(float)
    size = 0
    renderer = render.WordRenderer(presets.get_settings(flags.preset), seed=1)
    for index in range(flags.warmup):
        renderer.render_jpeg(index)
    start = time.perf_counter()
    with timed(totals):
        for index in range(flags.warmup, last):
            size += len(renderer.render_jpeg(index)[0])
    whole = time.perf_counter() - start
    print(f"with JPEG: {size / flags.count / 1000:.2f} kB a picture")
    totals["the rest"] = whole - sum(totals.values())
    print("| stage | microseconds | share |\n|---|---|---|")
    for stage, spent in totals.items():
        micro = 1e6 * spent / flags.count
        print(f"| {stage} | {micro:.0f} | {100 * spent / whole:.1f} % |")


if __name__ == "__main__":
    main()
