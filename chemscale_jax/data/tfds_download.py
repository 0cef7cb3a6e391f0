"""What all TFDS builders share: one file, downloaded and checked, or given by path.

Neither preparing nor reading needs TensorFlow.
"""

import dataclasses
import pathlib
from typing import Any, TypeVar

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.download.download_manager import (
    NonMatchingChecksumError,
)
from tensorflow_datasets.core.units import Size

from chemscale_jax.core.errors import UserError


@dataclasses.dataclass
class FileConfig(tfds.core.BuilderConfig):
    """Where the records of a data set come from.

    Attributes:
        name: names the folder of the prepared data set.
        url: address of the file.
        size: its size in bytes.
        sha256: its checksum; empty to accept any file.
        path: a copy of the file on this machine; empty to download it.
    """

    url: str = ""
    size: int = 0
    sha256: str = ""
    path: str = ""


class FileBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set that is one file."""

    file_name: str  # of the download
    homepage: str
    citation: str
    hint: str  # how to get the file by other means

    @property
    def file_config(self) -> Any:
        """The builder's config, which is a `FileConfig`."""
        assert isinstance(self.builder_config, FileConfig)
        return self.builder_config

    @property
    def url_infos(self) -> dict[str, Any] | None:
        """The checksum that a download is held against."""
        config = self.file_config
        if not config.sha256:
            return None
        info = UrlInfo(
            size=Size(config.size), checksum=config.sha256, filename=self.file_name
        )
        return {config.url: info}

    def info_of(self, description: str, features: Any) -> tfds.core.DatasetInfo:
        """What TFDS keeps of a data set whose records have these features."""
        return self.dataset_info_from_configs(
            description=description,
            features=tfds.features.FeaturesDict(features),
            homepage=self.homepage,
            citation=self.citation,
            # The stream shuffles; in the order of the file, reading is fastest.
            disable_shuffling=True,
        )

    def local_file(self, dl_manager: Any) -> pathlib.Path:
        """The given file, or the download under a name with its ending."""
        config = self.file_config
        if config.path:
            return pathlib.Path(config.path)
        path = pathlib.Path(dl_manager.download(config.url))
        # TFDS gives downloads names of its own, without the ending.
        named = path.with_name(f"{path.name}-{self.file_name}")
        named.unlink(missing_ok=True)
        named.symlink_to(path.name)
        return named


_Builder = TypeVar("_Builder", bound=FileBuilder)


def prepare(builder: _Builder) -> _Builder:
    """Downloads the file of a builder and writes its records, unless they are there.

    Raises:
        UserError: the download fails or is not the expected file.
    """
    address = builder.file_config.url
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except NonMatchingChecksumError as error:
        raise UserError(
            f"what {address} sent is not the expected file: "
            + " ".join(str(error).split())
        ) from error
    except (OSError, tfds.download.DownloadError) as error:
        raise UserError(
            f"cannot download {address} ({error}): check the connection, or "
            f"{builder.hint}"
        ) from error
    return builder
