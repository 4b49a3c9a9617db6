"""The flags of the command line. What each mode does with them: `modes`."""

from absl import flags
from ml_collections import config_flags

from robustscanner_jax.export.run import COMPARISON_SOURCE
from robustscanner_jax.inference import PRECISIONS
from robustscanner_jax.metrics import PROTOCOLS

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Config file for --mode=train, such as configs/quickstart.py."
)
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "predict", "import", "export", "serve"],
    "What to do.",
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run folder: written by train, read by the other modes."
)
WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Weights file to read with, or the name of weights that ship: small (which reads "
    "where neither is given) or tiny.",
)
MODEL = flags.DEFINE_string(
    "model", None, "evaluate, predict, serve: folder of an export to read with."
)
BACKEND = flags.DEFINE_enum(
    "backend",
    "auto",
    ["auto", "jax", "onnxruntime", "openvino"],
    "--model: what computes; auto takes openvino where it is installed, else "
    "onnxruntime.",
)
PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    list(PRECISIONS),
    "--model: bfloat16, with openvino alone, is faster and not exact.",
)
BENCHMARK = flags.DEFINE_multi_string(
    "benchmark", [], "evaluate: NAME:PATH, in any known format; repeatable."
)
ALLOWLIST = flags.DEFINE_string(
    "allowlist",
    None,
    "evaluate, predict, export, serve: characters that may be read, no others; "
    "0123456789 reads numbers. An export keeps the one it was made with.",
)
PROTOCOL = flags.DEFINE_enum(
    "protocol", "36", list(PROTOCOLS), "evaluate: how texts are compared."
)
ROTATE_TALL = flags.DEFINE_float(
    "rotate_tall",
    None,
    "evaluate, predict, serve: also read crops over so many times as tall as wide at "
    "90 and 270 degrees, and take the surest reading; 1 is MMOCR's rule. Off by "
    "default.",
)
LOOK_CLOSER = flags.DEFINE_boolean(
    "look_closer",
    False,
    "evaluate, predict, serve: read crops that are not read surely again without their "
    "edges, and take a reading that is far surer.",
)
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "evaluate: folder for the results. predict: folder for pictures of where the "
    "network looked. import: the weights file. export: the file or folder to write.",
)
JSONL = flags.DEFINE_boolean(
    "jsonl",
    False,
    "predict: print a JSON object a line, with the confidence of each character.",
)
SOURCE = flags.DEFINE_enum(
    "source", None, ["mmocr", "mmocr0", "paddle"], "import: where a checkpoint is from."
)
FORMAT = flags.DEFINE_enum(
    "format",
    "weights",
    ["weights", "stablehlo", "onnx", "triton"],
    "export: one file of weights, the folder of a graph, or a Triton repository.",
)
COMPARE = flags.DEFINE_string(
    "compare",
    COMPARISON_SOURCE,
    "export: images on which the graph must read as the live network does.",
)
DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "float16", "int8"],
    "import, export: of stored kernels; float32 for import, float16 for export. int8, "
    "with --format=onnx or triton: a graph that computes in 8-bit integers.",
)
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "import: .pth or .pdparams file.")
GOLDEN = flags.DEFINE_string(
    "golden", None, "import: .npz of the reference's outputs to compare with."
)
CHARSET = flags.DEFINE_string(
    "charset", None, "import: dictionary file of the checkpoint, a character a line."
)
MAX_LEN = flags.DEFINE_integer(
    "max_len", None, "import: decoding steps of the checkpoint, where not the usual."
)
HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "serve: address; only this machine reaches the default."
)
PORT = flags.DEFINE_integer("port", 8000, "serve: port; 0 takes a free one.")
