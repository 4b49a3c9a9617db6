"""The published datasets as TensorFlow Datasets, built without TensorFlow.

Run: python -m data_prep.tfds_builders iiit5k --manual_dir=FOLDER --data_dir=DIR

FOLDER is what the authors hand out, unpacked. A record is `id`, `image` and `text`, so
that DIR/iiit5k/1.0.0#test opens wherever the project takes a dataset. This is the
`build` command of TensorFlow Datasets with all its flags. Its own command line imports
TensorFlow for a sibling command; where that is installed, it does the same:

tfds build iiit5k --imports=data_prep.tfds_builders --file_format=array_record \
    --manual_dir=FOLDER --data_dir=DIR
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import ClassVar

import tensorflow_datasets as tfds
from tensorflow_datasets.scripts.cli import build, cli_utils

from data_prep.builders import READERS
from data_prep.builders.base import Reader, read_all
from data_prep.checks import Dropped, Limits, check_record


class WordCrops(  # pyright: ignore[reportGeneralTypeIssues]  # the base loads late
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # pyright: ignore[reportCallIssue]
):
    """One published dataset, in all splits whose files are there."""

    VERSION = tfds.core.Version("1.0.0")
    READER: type[Reader]
    url_infos: ClassVar = {}  # nothing is downloaded

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3)),
            "text": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.READER.__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        root = str(dl_manager.manual_dir)
        found, missing = {}, []
        for split in self.READER.SPLITS:
            try:
                reader = self.READER(root, split)
                next(iter(reader.entries()), None)
            except FileNotFoundError as error:
                missing.append(error)
                continue
            found[split] = self._generate_examples(reader)
        if not found:
            raise missing[0]
        return found

    def _generate_examples(self, reader: Reader) -> Iterator[tuple[int, dict]]:
        """Yields the good records, numbered; `data_prep.convert` reports the others."""
        limits, number = Limits(), 0
        for record in read_all(reader):
            if isinstance(record, Dropped):
                continue
            if isinstance(check_record(record, limits), Dropped):
                continue
            yield number, {"id": record.id, "image": record.image, "text": record.text}
            number += 1


def _builder(reader: type[Reader]) -> type[WordCrops]:
    """Returns the builder class of a reader; TFDS registers it by its name."""
    instructions = f"--manual_dir is a folder with {reader.NEEDS}."
    attributes = {
        "READER": reader,
        "name": reader.NAME,
        "MANUAL_DOWNLOAD_INSTRUCTIONS": instructions,
        "__doc__": reader.__doc__,
        "__module__": __name__,
    }
    return type(reader.__name__, (WordCrops,), attributes)


BUILDERS = {name: _builder(reader) for name, reader in READERS.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parse = cli_utils.make_flags_parser(build.Args, description=__doc__ or "")
    given = sys.argv[1:] if arguments is None else arguments
    # The last of two flags counts.
    args = parse(["tfds_builders", "--file_format=array_record", *given])
    data_dir = args.paths.data_dir.expanduser()  # TFDS does so with manual_dir alone
    args = dataclasses.replace(
        args, paths=dataclasses.replace(args.paths, data_dir=data_dir)
    )
    try:
        args.execute()
    except (ValueError, OSError) as error:
        sys.exit(f"tfds_builders: {error}")


if __name__ == "__main__":
    main()
