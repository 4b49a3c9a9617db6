"""Digests of arrays, to notice a bit that changed on disk."""

import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

_UINTS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def of_arrays(tree: Any) -> int:
    """Returns 32 bits that change with any one element, and with their order.

    Computed where the arrays are. Each word is mixed with its place by a bijection, so
    that one changed word always shows; several miss with a chance of 2**-32.

    Args:
      tree: arrays of up to 32 bits an element, their shapes fixed by the caller.
    """
    return int(_sum(jax.tree.leaves(tree)))


@jax.jit
def _sum(leaves: list[Array]) -> UInt32[Array, ""]:
    total = jnp.uint32(0)
    for leaf in leaves:
        if leaf.dtype.itemsize not in _UINTS:
            raise TypeError(f"expected at most 32 bits an element, got {leaf.dtype}")
        words = jax.lax.bitcast_convert_type(leaf, _UINTS[leaf.dtype.itemsize])
        words = words.astype(jnp.uint32).ravel()
        places = jnp.arange(words.size, dtype=jnp.uint32)
        total = total * jnp.uint32(0x01000193) + jnp.sum(_mixed(words, places))
    return total


def _mixed(words: UInt32[Array, "n"], places: UInt32[Array, "n"]) -> UInt32[Array, "n"]:
    """Returns MurmurHash3's finaliser of each word, moved by its place."""
    h = words + places * jnp.uint32(0x9E3779B9)
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


def of_json(value: Any) -> int:
    """Returns the CRC-32 of a JSON value, whatever the order of its keys."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())
