"""What differs between the published implementations, besides names."""

import dataclasses
from typing import Literal

from robustscanner_jax.charset import Charset
from robustscanner_jax.models.attention import MaskRounding
from robustscanner_jax.models.robustscanner import RobustScanner
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.reference.names import Dialect

SpecialOrder = Literal["end, pad, unknown", "unknown, end, pad"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A published implementation.

    Attributes:
      name: how the user calls it.
      title: how a text calls it.
      dialect: names and layouts of its tensors.
      special_order: of the ids that follow the characters.
      predicts_pad: whether the padding token is a class.
      max_len: decoding steps of its released models.
      mask_rounding, unbiased_variance: see `RobustScanner`.
      preprocessing: of its released models.
      reads_pad_row: whether it looks the padding token's embedding up like any other;
        otherwise it takes zeros, whatever the checkpoint holds.
      mean_score: its score of a text is the mean of the characters' probabilities;
        otherwise it gives each.
    """

    name: str
    title: str
    dialect: Dialect
    special_order: SpecialOrder
    predicts_pad: bool
    max_len: int
    mask_rounding: MaskRounding
    unbiased_variance: bool
    preprocessing: Preprocessing
    reads_pad_row: bool
    mean_score: bool

    def token_ids(self, num_characters: int) -> dict[str, int]:
        """Returns the special ids and the number of classes, by `Charset`'s names."""
        n = num_characters
        if self.special_order == "end, pad, unknown":
            ids = {"end_id": n, "pad_id": n + 1, "unknown_id": n + 2}
        else:
            ids = {"unknown_id": n, "end_id": n + 1, "pad_id": n + 2}
        return ids | {"num_classes": n + 3 if self.predicts_pad else n + 2}

    def charset(self, characters: str) -> Charset:
        """Returns the charset over these characters with this source's ids."""
        return Charset(characters, **self.token_ids(len(characters)))

    def model(self, charset: Charset, *, max_len: int, width: str) -> RobustScanner:
        """Returns the network with this source's behaviour."""
        return RobustScanner(
            num_classes=charset.num_classes,
            num_tokens=charset.num_tokens,
            start_id=charset.end_id,
            end_id=charset.end_id,
            pad_id=charset.pad_id,
            max_len=max_len,
            width=width,
            mask_rounding=self.mask_rounding,
            unbiased_variance=self.unbiased_variance,
        )
