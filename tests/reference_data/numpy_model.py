"""The published network in numpy and float64, from a checkpoint's own names.

Written from the description of the network, not from this project's code, to check it
on weights and images that no golden file covers. Slow; evaluation mode only.
"""

import numpy as np

EPSILON = 1e-5
STAGES = ((2, 1, (2, 2)), (3, 2, (2, 2)), (4, 5, (2, 1)), (5, 3, None))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


class Published:
    """MMOCR's (1.x or 0.x) network around a checkpoint."""

    def __init__(self, state):
        self.state = {name: np.asarray(a, np.float64) for name, a in state.items()}

    def conv(self, x, name):
        """Returns a convolution of [b, c, h, w] that keeps the size."""
        weight = self.state[f"{name}.weight"]
        pad = weight.shape[2] // 2
        h, w = x.shape[2:]
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        y = 0.0
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                part = x[:, :, i : i + h, j : j + w]
                y = y + np.einsum("bchw,oc->bohw", part, weight[:, :, i, j])
        if f"{name}.bias" in self.state:
            y = y + self.state[f"{name}.bias"][None, :, None, None]
        return y

    def norm(self, x, name):
        def channel(part):
            return self.state[f"{name}.{part}"][None, :, None, None]

        x = (x - channel("running_mean")) / np.sqrt(channel("running_var") + EPSILON)
        return x * channel("weight") + channel("bias")

    def block(self, x, name):
        y = self.norm(self.conv(x, f"{name}.conv1"), f"{name}.bn1")
        y = self.norm(self.conv(np.maximum(y, 0), f"{name}.conv2"), f"{name}.bn2")
        if f"{name}.downsample.0.weight" in self.state:
            x = self.conv(x, f"{name}.downsample.0")
            x = self.norm(x, f"{name}.downsample.1")
        return np.maximum(x + y, 0)

    def backbone(self, x):
        for number in ("1_1", "1_2"):
            x = self.conv(x, f"backbone.conv{number}")
            x = np.maximum(self.norm(x, f"backbone.bn{number}"), 0)
        for stage, blocks, pool in STAGES:
            if pool:
                b, c, h, w = x.shape  # all sizes here divide
                x = x.reshape(b, c, h // pool[0], pool[0], w // pool[1], pool[1])
                x = x.max(axis=(3, 5))
            for block in range(blocks):
                x = self.block(x, f"backbone.block{stage}.{block}")
            x = self.conv(x, f"backbone.conv{stage}")
            x = np.maximum(self.norm(x, f"backbone.bn{stage}"), 0)
        return x

    def lstm(self, x, name):
        """Returns the outputs [b, t, d] of two layers; gates i, f, g, o."""
        for layer in (0, 1):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            w_in, w_rec, b_in, b_rec = (
                self.state[f"{name}.{part}_l{layer}"] for part in names
            )
            hidden = cell = np.zeros((len(x), w_rec.shape[1]))
            steps = []
            for t in range(x.shape[1]):
                gates = x[:, t] @ w_in.T + hidden @ w_rec.T + (b_in + b_rec)[None]
                i, f, g, o = np.split(gates, 4, axis=1)
                cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
                hidden = sigmoid(o) * np.tanh(cell)
                steps.append(hidden)
            x = np.stack(steps, axis=1)
        return x

    def attend(self, query, keys, values, columns):
        """Returns glimpses; logits are not scaled, columns beyond `columns` masked."""
        b, _, h, w = keys.shape
        logits = np.einsum("btd,bdhw->bthw", query, keys)
        masked = np.arange(w)[None, :] >= np.asarray(columns)[:, None]
        masked = np.broadcast_to(masked[:, None, None, :], logits.shape)
        logits = np.where(masked, -np.inf, logits).reshape(b, -1, h * w)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.einsum("bts,bvs->btv", weights, values.reshape(b, -1, h * w))

    def encode(self, image, columns, steps):
        """Returns what decoding needs of [b, 3, 48, 160] images."""
        values = self.backbone(np.asarray(image, np.float64))
        keys = self.conv(values, "encoder.layer")
        b, c, h, w = keys.shape
        position = "decoder.position_decoder"
        rows = keys.transpose(0, 2, 3, 1).reshape(b * h, w, c)
        rows = self.lstm(rows, f"{position}.position_aware_module.rnn")
        aware = rows.reshape(b, h, w, -1).transpose(0, 3, 1, 2)
        aware = self.conv(aware, f"{position}.position_aware_module.mixer.0")
        aware = np.maximum(aware, 0)
        aware = self.conv(aware, f"{position}.position_aware_module.mixer.2")
        query = self.state[f"{position}.embedding.weight"][None, :steps]
        query = np.repeat(query, b, axis=0)
        return values, keys, columns, self.attend(query, aware, values, columns)

    def logits(self, encoded, tokens):
        """Returns the logits of every step, teacher forced."""
        values, keys, columns, position_glimpse = encoded
        hybrid = "decoder.hybrid_decoder"
        query = self.state[f"{hybrid}.embedding.weight"][np.asarray(tokens)]
        query = self.lstm(query, f"{hybrid}.sequence_layer")
        glimpse = self.attend(query, keys, values, columns)
        both = np.concatenate(
            [glimpse, position_glimpse[:, : glimpse.shape[1]]], axis=-1
        )
        both = self.linear(both, "decoder.linear_layer")
        content, gate = np.split(both, 2, axis=-1)
        return self.linear(content * sigmoid(gate), "decoder.prediction")

    def linear(self, x, name):
        bias = self.state[f"{name}.bias"]
        return x @ self.state[f"{name}.weight"].T + bias[None, None]

    def greedy(self, encoded, start, steps):
        """Returns tokens and probabilities; reruns everything at each step."""
        b = len(encoded[0])
        tokens = np.full((b, steps + 1), start)
        probabilities = np.zeros((b, steps))
        for t in range(steps):
            logits = self.logits(encoded, tokens[:, : t + 1])[:, t]
            odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
            tokens[:, t + 1] = logits.argmax(axis=-1)
            probabilities[:, t] = 1.0 / odds.sum(axis=-1)
        return tokens[:, 1:], probabilities
