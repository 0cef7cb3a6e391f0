"""Text to tokens: this package's whole pipeline, and the selfies library's encoder.

    python benchmarks/tokenizing.py --data=FILE.smi

Ours reads the lines, parses and canonicalises each molecule with RDKit, encodes it,
hashes it for deduplication and writes a token store with its ledger. The other side is
``selfies.encoder`` and ``selfies.split_selfies`` alone, on the SMILES that both can
encode, which it is given in memory. Both run in this process and take turns; what
counts is CPU time. Then the wall time of our pipeline with one and with two processes.
See README.md for results.
"""

import argparse
import importlib.metadata
import itertools
import json
import pathlib
import tempfile
import time

import numpy as np
import selfies

from chemscale_jax.data.text.embedded_corpus import embedded_smiles
from chemscale_jax.data.text.token_store import TokenStore
from chemscale_jax.data.text.tokenize import tokenize_file


def pipeline(path: pathlib.Path, workers: int) -> tuple[TokenStore, float, float]:
    """Our store of a file, and the CPU and wall seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        start, start_cpu = time.perf_counter(), time.process_time()
        store = tokenize_file(
            path, pathlib.Path(folder) / "store", workers=workers, progress=False
        )
        seconds = time.perf_counter() - start
        cpu = time.process_time() - start_cpu
        return store.in_memory(), cpu, seconds


def library(smiles: list[str]) -> float:
    """CPU seconds of the library on SMILES that it can encode."""
    start = time.process_time()
    for line in smiles:
        list(selfies.split_selfies(selfies.encoder(line)))
    return time.process_time() - start


def encodes(smiles: str) -> bool:
    """Whether the library takes a SMILES."""
    try:
        selfies.encoder(smiles)
    except selfies.EncoderError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        help="text file with a SMILES at the start of each line; "
        "default the embedded corpus",
    )
    parser.add_argument("--lines", type=int, help="of the file; default all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    args = parser.parse_args()
    source = args.data or embedded_smiles()
    with tempfile.TemporaryDirectory() as folder, source.open() as file:
        path = pathlib.Path(folder) / "lines.smi"
        path.write_text("".join(itertools.islice(file, args.lines)))
        lines = path.read_text().splitlines()
        store, *_ = pipeline(path, 0)
        kept = [lines[number - 1].split()[0] for number in store.lines]
        kept = [line for line in kept if encodes(line)]
        cpu: dict[str, list[float]] = {"ours": [], "library": []}
        for _ in range(args.rounds):
            cpu["ours"].append(pipeline(path, 0)[1] / len(lines))
            cpu["library"].append(library(kept) / len(kept))
        wall: dict[int, list[float]] = {workers: [] for workers in args.workers}
        for _ in range(args.rounds if args.workers else 0):
            for workers in args.workers:
                wall[workers].append(pipeline(path, workers)[2])
    micro = {name: 1e6 * float(np.median(each)) for name, each in cpu.items()}
    result = {
        "versions": {n: importlib.metadata.version(n) for n in ("selfies", "rdkit")},
        "lines": len(lines),
        "molecules": len(store),
        "us_per_molecule": micro,
        "of_the_library": micro["library"] / micro["ours"],
        "molecules_s": {n: len(lines) / float(np.median(s)) for n, s in wall.items()},
    }
    if 1 in wall and 2 in wall:
        ratio = float(np.median(wall[1]) / np.median(wall[2]))
        result["two_processes"] = ratio
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
