"""Renders pictures of words to train a scene-text recogniser on.

`WordRenderer` in `render` is the generator, `RenderedWords` in `source` the same as a
random-access source for grain. Nothing here imports JAX: the code runs in worker
processes.
"""
