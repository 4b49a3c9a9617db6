"""Cuts the golden files down to what may be part of the repository.

The rows of images 0, 1, 3 and 5 were made for this project; the others come from an
academic set and stay outside. `stage@n` holds every n-th channel of a stage.

Run:    python tests/reference_data/make.py ../shared/reference
"""

import sys
from pathlib import Path

import numpy as np

ROWS = [0, 1, 3, 5]
FIRST_TWO = {"backbone": 32, "encoder": 16}  # hold images 0 and 1
FIRST = {"position_aware": 16, "position_aware_rnn": 16}  # hold image 0
SEQUENCES = {
    "hybrid_query": 8,
    "hybrid_glimpse": 16,
    "position_glimpse": 16,
    "teacher_fused": 16,
}
WHOLE = (
    "stage_block2 stage_relu2 stage_block3 stage_relu3 stage_block4 stage_relu4 "
    "stage_block5 backbone_mean backbone_std teacher_logits images_u8 valid_ratio "
    "valid_width target_padded target_text greedy_tokens greedy_text greedy_score "
    "greedy_scores eval_loss_per_token teacher_logits_f64 greedy_logits_f64"
).split()


def cut(golden):
    """Returns the arrays to keep, by name."""
    kept = {"salt": golden["salt"]}
    for name in WHOLE:
        if name in golden.files:
            kept[name] = golden[name][ROWS]
    for name, step in FIRST_TWO.items():
        kept[f"{name}@{step}"] = golden[name][:, ::step]
    for name, step in FIRST.items():
        kept[f"{name}@{step}"] = golden[name][::step]
    for name, step in SEQUENCES.items():
        kept[f"{name}@{step}"] = golden[name][ROWS][..., ::step]
    kept["greedy_top1"] = golden["greedy_probs"].max(axis=-1)[ROWS]
    for name in ("target_padded", "greedy_tokens"):
        kept[name] = kept[name].astype(np.uint8)
    return kept


def main():
    """Writes `mmocr_rows.npz` and `paddle_rows.npz` beside this script."""
    folder = Path(sys.argv[1])
    for source in ("mmocr", "paddle"):
        with np.load(folder / f"{source}_golden.npz", allow_pickle=False) as golden:
            kept = cut(golden)
        np.savez_compressed(Path(__file__).with_name(f"{source}_rows.npz"), **kept)


if __name__ == "__main__":
    main()
