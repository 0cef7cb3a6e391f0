"""Search over a million vectors: build time, memory, recall and time per query.

    python benchmarks/similarity_search.py --spectrum=library.index --out=search.json

Vectors are Gaussian with a given spectrum: the variances of an index of embeddings (its
projection.npz), or a power law. Random isotropic ones, the hardest there are, stand
beside them. Queries are drawn apart from the vectors. Each case runs in a process of
its own, whose peak memory is reported; memory-mapped pages that were touched count.

Exact answers are compared with a brute force of plain NumPy in float64, approximate
ones with the exact answers. A query alone is timed one after the other, in batches all
at once; both on the threads that are given. See README.md for results.
"""

import argparse
import importlib.metadata
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from chemscale_jax.analysis.search import approximate_neighbours
from chemscale_jax.analysis.search.index_build import IndexSettings, build_index
from chemscale_jax.analysis.search.own_neighbours import recall_of
from chemscale_jax.analysis.search.principal_components import Projection
from chemscale_jax.analysis.search.vector_index import PROJECTION, VectorIndex
from chemscale_jax.analysis.search.vector_sources import array_source

_ROWS = 65536
# Queries whose exact answers are compared with a brute force in float64.
_CHECKED = 10


def spectrum(args: argparse.Namespace) -> np.ndarray:
    """Variances of the directions, falling."""
    if args.spectrum:
        path = pathlib.Path(args.spectrum)
        file = path / PROJECTION if path.is_dir() else path
        return Projection.load(file).variances[: args.width]
    return np.arange(1, args.width + 1) ** -args.power


def draw(count: int, variances: np.ndarray, seed: int, path: pathlib.Path) -> None:
    """Writes (count, d) float32 Gaussian vectors, block by block."""
    rng = np.random.default_rng(seed)
    scales = np.sqrt(variances).astype(np.float32)
    shape = (count, len(variances))
    made = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for start in range(0, count, _ROWS):
        rows = min(_ROWS, count - start)
        block = rng.standard_normal((rows, len(scales)), np.float32)
        made[start : start + rows] = block * scales
    made.flush()


def brute_force(index: VectorIndex, queries: np.ndarray, k: int) -> np.ndarray:
    """(Q, k) ids by every distance in float64, without the code of the package."""
    away = np.empty((len(queries), len(index)))
    for start in range(0, len(index), _ROWS):
        block = index.store.vectors[start : start + _ROWS].astype(np.float64)
        for place, query in enumerate(queries.astype(np.float64)):
            apart = block - query
            if index.metric == "l1":
                found = np.abs(apart).sum(axis=1)
            else:
                found = np.einsum("md,md->m", apart, apart)
            away[place, start : start + len(block)] = found
    return np.argsort(away, axis=1, kind="stable")[:, :k]


def one_case(args: argparse.Namespace) -> dict:
    """Builds an index of one kind over the vectors of a file, and asks it."""
    faiss = approximate_neighbours.import_faiss("this benchmark")
    faiss.omp_set_num_threads(args.threads)
    vectors = np.load(args.vectors_file, mmap_mode="r")
    queries = np.load(args.queries_file)
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        settings = IndexSettings(
            kind=args.case,
            metric=args.metric,
            pca=0,
            fingerprints=False,
            k=args.k,
            recall=args.recall,
        )
        start, start_cpu = time.perf_counter(), time.process_time()
        build_index([array_source(vectors)], folder, settings, progress=False)
        build_s = time.perf_counter() - start
        build_cpu_s = time.process_time() - start_cpu
        index = VectorIndex.open(folder)
        asked = index.project(queries)
        size = sum(file.stat().st_size for file in pathlib.Path(folder).iterdir())
        built_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        index.search(asked[:8], args.k)  # opens the files
        alone = asked[: args.single]
        start, start_cpu = time.perf_counter(), time.process_time()
        for query in alone:
            index.search(query[None], args.k)
        single_ms = 1e3 * (time.perf_counter() - start) / len(alone)
        single_cpu_ms = 1e3 * (time.process_time() - start_cpu) / len(alone)
        start, start_cpu = time.perf_counter(), time.process_time()
        found = index.search(asked, args.k)
        batch_ms = 1e3 * (time.perf_counter() - start) / len(asked)
        batch_cpu_ms = 1e3 * (time.process_time() - start_cpu) / len(asked)
        exact = found
        if index.kind != "flat":
            exact = index.search(asked, args.k, exact=True)
        true = brute_force(index, asked[:_CHECKED], args.k)
        return {
            "kind": args.case,
            "build_s": build_s,
            "build_cpu_s": build_cpu_s,
            "folder_mib": size / 2**20,
            "peak_mib_of_build": built_mib,
            "effort": index.facts.get("effort"),
            "recall_at_build": index.facts.get("recall"),
            f"recall@{args.k}": recall_of(found.ids, exact.ids),
            "exact_equals_brute_force": bool(
                np.array_equal(exact.ids[:_CHECKED], true)
            ),
            "ms_per_query_alone": single_ms,
            "cpu_ms_per_query_alone": single_cpu_ms,
            "ms_per_query_in_batch": batch_ms,
            "cpu_ms_per_query_in_batch": batch_cpu_ms,
        }


def case_in_its_process(args: argparse.Namespace, folder: str, kind: str) -> dict:
    """`one_case` in a fresh process, so that memory is its own."""
    command = [
        sys.executable,
        __file__,
        *sys.argv[1:],
        f"--case={kind}",
        f"--vectors-file={folder}/vectors.npy",
        f"--queries-file={folder}/queries.npy",
        f"--scratch={folder}",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--vectors", type=int, default=1_000_000)
    add("--queries", type=int, default=1000, help="in a batch")
    add("--single", type=int, default=200, help="queries that are asked alone")
    add("--width", type=int, default=100)
    add("--spectrum", help="index with components, or its projection.npz")
    add("--power", type=float, default=1.0, help="variances i^-POWER without a file")
    add("--no-isotropic", action="store_true", help="leave out isotropic vectors")
    add("--kinds", nargs="*", default=["flat", "ivf"], help="of indexes; hnsw too")
    add("--metric", default="cosine")
    add("--k", type=int, default=100)
    add("--recall", type=float, default=0.96, help="for which indexes are built")
    add("--threads", type=int, default=2)
    add("--scratch", help="folder for files of the benchmark")
    add("--out", type=pathlib.Path, help="json")
    add("--case", help=argparse.SUPPRESS)
    add("--vectors-file", help=argparse.SUPPRESS)
    add("--queries-file", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(one_case(args)))
        return
    variances = spectrum(args)
    shapes = {"spectrum": variances}
    if not args.no_isotropic:
        shapes["isotropic"] = np.ones(args.width)
    result = {
        "versions": {n: importlib.metadata.version(n) for n in ("faiss-cpu", "numpy")},
        "vectors": args.vectors,
        "queries": args.queries,
        "metric": args.metric,
        "threads": args.threads,
        "spectrum": args.spectrum or f"variances i^-{args.power:g}",
        "variance_of_first_10": float(variances[:10].sum() / variances.sum()),
        "cases": {},
    }
    for name, variances in shapes.items():
        with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
            path = pathlib.Path(folder)
            draw(args.vectors, variances, 0, path / "vectors.npy")
            draw(args.queries, variances, 1, path / "queries.npy")
            result["cases"][name] = [
                case_in_its_process(args, folder, kind) for kind in args.kinds
            ]
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
