"""Every option of the project; the variants beside this file change a few.

Run: python -m robustscanner_jax.main --config=configs/<name>.py --workdir=RUN
Override: --config.train.steps=1000
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the full config."""
    config = ConfigDict()
    config.seed = 0  # of initial weights, order, augmentation
    # Text file, one character a line; empty: the 90 published ones.
    config.charset = ""

    config.model = ConfigDict()
    config.model.width = (
        "base"  # backbone channels: base 1, small 1/2, tiny 1/4, nano 1/8
    )
    config.model.max_len = 30  # decoding steps, the end token included
    config.model.decoder_width = 128  # channels of embedding, LSTM and attention
    config.model.mask_rounding = "ceil"  # of the content's columns: ceil or nearest
    config.model.unbiased_variance = (
        True  # running variance as PyTorch's; Paddle's: False
    )
    config.model.use_hybrid = True  # the context branch; False to ablate it
    config.model.use_position = True  # the position branch; False to ablate it
    # Of the computation: float32, bfloat16, or auto: bfloat16 on accelerators; on CPU
    # float32, but training multiplies bfloat16 where the processor has AMX. On
    # accelerators products of float32 are rounded (TF32, on TPU bfloat16), unless
    # JAX_DEFAULT_MATMUL_PRECISION=highest is set.
    config.model.dtype = "auto"

    config.preprocessing = ConfigDict()
    config.preprocessing.height = 48  # pixels
    config.preprocessing.min_width = 48  # pixels
    config.preprocessing.max_width = 160  # pixels; wider crops are squeezed
    config.preprocessing.width_multiple = 4  # pixels a column of the feature map
    config.preprocessing.clamp_first = True  # clamp the width, then round it (MMOCR)
    config.preprocessing.channel_order = "BGR"  # or RGB
    config.preprocessing.mean = 127.0  # the network sees (pixel - mean) / scale
    config.preprocessing.scale = 127.0

    config.data = ConfigDict()
    # Folders and files as the README lists them, or words rendered on the fly:
    # rendered:PRESET?seed=1&count=1000000&split=train
    config.data.train = ("rendered:full?seed=1&count=20000000&split=train",)
    config.data.weights = (1.0,)  # share of each source in the mixture
    # Evaluated during training and at its end, NAME:SOURCE.
    config.data.evaluate = ("heldout:rendered:full?seed=2&count=1024&split=heldout",)
    # How texts are compared there, see --protocol; auto: 36, or exact for charsets with
    # letters of other scripts.
    config.data.protocol = "auto"
    # Write rendered sources to RUN/rendered before training, all "count" words of them
    # (a million takes 2 GB), and read them from there.
    config.data.store_rendered = False
    config.data.batch_size = 256  # examples an update, over all devices
    # Processes that prepare batches, for each process that trains; 0: threads, -1: one
    # for each core it may use but one.
    config.data.num_workers = 0
    config.data.augment = 0.0  # probability scale of the distortions, 0 (off) to 1
    # Distortions to leave out, functions of data/augment.py: ("invert", "blur").
    config.data.augment_without = ()
    # Rows made of each example, differing in augmentation, which must be on: where
    # rendering or reading is slower than the device. Divides the batch size.
    config.data.variants = 1
    # Of unreadable examples since the run was started or resumed; it stops beyond, and
    # where half of those since the last line of the log are.
    config.data.max_bad_share = 0.05

    config.train = ConfigDict()
    config.train.steps = 100_000  # updates
    config.train.schedule = "step"  # step (published), cosine, one_cycle, constant
    config.train.peak_lr = 1e-3  # for the batch size above; never rescaled
    config.train.warmup_steps = 0  # updates of linear rise before the schedule
    config.train.weight_decay = 0.0  # decoupled, on kernels alone
    config.train.clip_norm = 5.0  # of the global gradient; 0: off
    # Of the running average of parameters, reached from 0.1 on; 0: off.
    config.train.ema_decay = 0.0
    # Micro-batches an update is computed in, for batches that do not fit in memory;
    # batch norm then sees each of them alone.
    config.train.accumulate = 1
    # Updates in a row that are not finite or found nothing readable; then stop.
    config.train.max_skipped = 10
    config.train.log_every = 50  # updates
    config.train.evaluate_every = 5_000  # updates
    config.train.save_every = 1_000  # updates; and before it evaluates
    config.train.keep = 3  # newest checkpoints that stay
    # Weights of the best evaluation, by the mean over its sets: RUN/best.safetensors.
    config.train.keep_best = True
    # Trains the decoder alone, for few words or few cores: the backbone, its batch norm
    # included, stays as it is in the weights to start from.
    config.train.freeze_backbone = False
    # Weights to start from, of this or another charset or max_len, otherwise of this
    # model: a file, a run folder, or "small" or "tiny", which ship; empty: random.
    config.train.init_weights = ""
    # First and last update of a trace of process 0 in RUN/profile; (0, 0): none.
    config.train.profile = (0, 0)
    # An update, with its data, or a save that takes longer ends the process with a
    # traceback; 0: waits forever.
    config.train.stall_seconds = 1_800
    return config.lock()  # a misspelt key is an error


def set_image_size(config: ConfigDict, height: int, max_width: int) -> None:
    """Sets what the network sees; the narrowest image is a square."""
    config.preprocessing.height = height
    config.preprocessing.min_width = height
    config.preprocessing.max_width = max_width
