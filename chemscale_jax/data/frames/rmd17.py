"""Revised MD-17 (Christensen and von Lilienfeld 2020) with its five official splits.

The release holds ``npz_data/rmd17_MOLECULE.npz`` with all frames of a molecule, in
kcal/mol and angstrom, and ``splits/index_{train,test}_0{1..5}.csv`` with rows of it. It
is read from the unpacked folder or from the archive (.tar.bz2, .tar.gz, .tar, .zip).
Folders with ready-made halves ``rmd17_MOLECULE_{train,test}_0K.npz`` are read too.
"""

import io
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.converted import ConvertedSource
from chemscale_jax.data.frames.frames import AUTO_UNITS, Bad, Frames, UnitNames
from chemscale_jax.data.frames.md17 import checked_arrays, frames_of, read_npz
from chemscale_jax.data.frames.source import TEST, TRAIN, UNUSED

KEYS = ("nuclear_charges", "coords", "energies", "forces")
LARGEST_TRAIN = (
    1000,
    "the frames are of one molecular dynamics run and follow one another closely "
    "(autocorrelation), so the authors of revised MD-17 advise at most 1,000 of each",
)
_HINT = (
    "unpack rmd17.tar.bz2 of https://doi.org/10.6084/m9.figshare.12672038 and name the "
    "folder (or the archive) with --config.data.path"
)
_ARCHIVES = (".tar.bz2", ".tar.gz", ".tgz", ".tar", ".zip")


def open_rmd17(
    path: str | pathlib.Path,
    molecule: str,
    split_index: int = 1,
    unit_names: UnitNames = AUTO_UNITS,
) -> ConvertedSource:
    """Records of molecules, with the official split as ``given_split``.

    Args:
        path: the folder or the archive of the release, a folder with ready-made
            halves, or one ``rmd17_MOLECULE.npz``.
        molecule: such as "ethanol", or several as "ethanol,toluene".
        split_index: which official split, 1 to 5; 0 for none.
        unit_names: units of the file, if not kcal/mol and angstrom.

    Raises:
        UserError: the molecule or the split is not there, or a file cannot be read.
    """
    if split_index not in range(6):
        raise UserError(
            f"config.data.split_index={split_index}: use 1 to 5, or 0 for no split"
        )
    if not str(path):
        raise UserError(f"config.data.path is empty: {_HINT}")
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise UserError(f"there is no file or folder {path}: {_HINT}")
    names = unit_names.filled("kcal/mol", "kcal/mol/angstrom", "angstrom")
    is_archive = path.name.endswith(_ARCHIVES)
    files: dict[str, pathlib.Path] = {}
    if path.is_dir():
        levels = ("*", "*/*", "*/*/*")
        found = (p for level in levels for p in sorted(path.glob(level)))
        files = {str(p.relative_to(path)): p for p in found}
    elif not is_archive:
        indices = (
            index
            for folder in (".", "splits", "../splits")
            for index in (path.parent / folder).glob("index_*.csv")
        )
        files = {p.name: p for p in (path, *indices)}
        molecule = molecule or path.stem.removeprefix("rmd17_")
    molecules = [part.strip() for part in molecule.split(",")]
    if len(set(molecules)) < len(molecules):
        raise UserError(f"config.data.molecule={molecule!r} names a molecule twice")
    chosen: dict[str, dict[str, str]] = {}
    if not is_archive:
        for one in molecules:
            chosen[one] = _choose(str(path), list(files), one, split_index)

    def read(facts: dict[str, Any]) -> Iterator[Frames | Bad]:
        inside = _unpacked(path, molecules, split_index) if is_archive else {}
        for one in molecules:
            if is_archive:
                choice = _choose(str(path), list(inside), one, split_index)
                contents = {part: inside[name] for part, name in choice.items()}
            else:
                choice = chosen[one]
                contents = {
                    part: files[name].read_bytes() for part, name in choice.items()
                }
            where = {part: f"{path}:{name}" for part, name in choice.items()}
            yield from _frames(contents, where, one, names, split_index > 0)

    return ConvertedSource(
        read,
        [path]
        if is_archive
        else sorted(
            {files[name] for choice in chosen.values() for name in choice.values()}
        ),
        {
            "reader": "rmd17",
            "molecule": molecule,
            "split_index": split_index,
            "units": names,
        },
        {
            "method": "PBE/def2-SVP",
            "molecule": molecule,
            "split_index": split_index,
            "units": names._asdict(),
        },
        largest_train=(LARGEST_TRAIN[0] * len(molecules), LARGEST_TRAIN[1]),
    )


def _choose(
    path: str, files: list[str], molecule: str, split_index: int
) -> dict[str, str]:
    """What to read: {"all", "train index", ...} or {"train", "test"} -> its name."""

    def named(name: str) -> str | None:
        found = [f for f in files if pathlib.PurePosixPath(f).name == name]
        return min(found, key=len) if found else None

    stems = (pathlib.PurePosixPath(f) for f in files)
    whole = {p.stem.removeprefix("rmd17_") for p in stems if p.suffix == ".npz"}
    known = sorted({name.split("_train_")[0].split("_test_")[0] for name in whole})
    if molecule not in known:
        raise UserError(
            f"config.data.molecule={molecule!r} is not in {path}, which has "
            f"{', '.join(known) or 'no rmd17_MOLECULE.npz'}"
            + ("" if known else f": {_HINT}")
        )
    everything = named(f"rmd17_{molecule}.npz")
    if everything and not split_index:
        return {"all": everything}
    if everything:
        halves = {
            f"{half} index": named(f"index_{half}_0{split_index}.csv")
            for half in ("train", "test")
        }
        if None in halves.values():
            raise UserError(
                f"{path} has no splits/index_train_0{split_index}.csv and "
                f"index_test_0{split_index}.csv: get them from the release, or use "
                "config.data.split_index=0 for a split of your own"
            )
        return {"all": everything} | {k: str(v) for k, v in halves.items()}
    number = split_index or 1
    halves = {
        half: named(f"rmd17_{molecule}_{half}_0{number}.npz")
        for half in ("train", "test")
    }
    if None in halves.values():
        raise UserError(
            f"{path} has no pair rmd17_{molecule}_train_0{number}.npz and "
            f"rmd17_{molecule}_test_0{number}.npz, nor rmd17_{molecule}.npz: use "
            "another config.data.split_index"
        )
    return {k: str(v) for k, v in halves.items()}


def _frames(
    contents: dict[str, bytes],
    where: dict[str, str],
    molecule: str,
    names: UnitNames,
    is_split: bool,
) -> Iterator[Frames]:
    """Frames of what `_choose` chose, train before test where they are apart."""
    first_row = 0
    for half in ("all", "train", "test"):
        if half not in contents:
            continue
        arrays = read_npz(io.BytesIO(contents[half]), KEYS, name=where[half])
        z, x, e, f = checked_arrays(arrays, KEYS, where[half])
        parts = None
        if half != "all" and is_split:
            parts = np.full(len(x), TRAIN if half == "train" else TEST, np.int8)
        elif half == "all" and is_split:
            parts = np.full(len(x), UNUSED, np.int8)
            for index, value in (("train index", TRAIN), ("test index", TEST)):
                rows = _indices(contents[index], where[index], len(x))
                if (parts[rows] != UNUSED).any():
                    raise UserError(
                        f"{where[index]} has frames of {where['train index']}: a frame "
                        "cannot be in both halves"
                    )
                parts[rows] = value
        yield from frames_of(z, x, e, f, molecule, names, parts, first_row)
        first_row += len(x)


def _indices(content: bytes, where: str, n_frames: int) -> np.ndarray:
    """Rows of a split file, one to a line, counted from 0."""
    try:
        rows = np.array(content.decode().split(), np.int64)
    except (UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{where} is not a list of row numbers ({error})") from error
    if not len(rows) or rows.min() < 0 or rows.max() >= n_frames:
        raise UserError(
            f"{where} has {len(rows)} row numbers up to {rows.max(initial=-1)}, but "
            f"the molecule has {n_frames} frames: the files do not belong together"
        )
    return rows


def _unpacked(
    path: pathlib.Path, molecules: list[str], split_index: int
) -> dict[str, bytes]:
    """Name -> content of the files in an archive; empty where it is of no use."""
    halves = [f"{half}_0{split_index or 1}" for half in ("train", "test")]
    useful = {f"index_{half}.csv" for half in halves}
    for molecule in molecules:
        useful |= {f"rmd17_{molecule}.npz"}
        useful |= {f"rmd17_{molecule}_{half}.npz" for half in halves}

    def is_useful(name: str) -> bool:
        return pathlib.PurePosixPath(name).name in useful

    contents = {}
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    contents[name] = archive.read(name) if is_useful(name) else b""
            return contents
        # One pass: the archive has no index, and unpacking all of it takes minutes.
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member) if is_useful(member.name) else None
                contents[member.name] = b"" if stream is None else stream.read()
        return contents
    except (
        OSError,
        EOFError,
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise UserError(
            f"{path} cannot be read as an archive ({reason}): it is damaged or cut "
            "short; get a fresh copy"
        ) from error
