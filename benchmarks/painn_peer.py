"""schnetpack's PaiNN for painn_step.py, which starts this file in its environment."""

import argparse
import importlib
import json
import sys
import time
import typing
import warnings

import numpy as np

# Loaded by name, since the environment of this package does not have them.
load: typing.Callable[[str], typing.Any] = importlib.import_module
torch = load("torch")
warnings.filterwarnings("ignore")
# schnetpack 2.1 imports a name that newer torch has renamed.
T_co = typing.TypeVar("T_co", covariant=True)
vars(load("torch.utils.data.dataloader")).setdefault("T_co", T_co)
snn = load("schnetpack.nn")
names = load("schnetpack.properties")
atomistic = load("schnetpack.atomistic")
representation = load("schnetpack.representation")
potential = load("schnetpack.model").NeuralNetworkPotential


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames")
    parser.add_argument("--width", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true", help="try torch.compile")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with np.load(args.frames) as file:
        data = {k: torch.tensor(file[k]) for k in file.files if "/" not in k}
    molecules, edges = len(data["energy"]), len(data["senders"])
    network = representation.PaiNN(
        n_atom_basis=args.width,
        n_interactions=3,
        radial_basis=snn.BesselRBF(20, 5.0),
        cutoff_fn=snn.CosineCutoff(5.0),
    )
    model = potential(
        representation=torch.compile(network) if args.compile else network,
        input_modules=[atomistic.PairwiseDistances()],
        output_modules=[
            atomistic.Atomwise(n_in=args.width, output_key="energy"),
            atomistic.Forces(),
        ],
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    inputs = {
        names.Z: data["species"].long(),
        names.idx_i: data["receivers"].long(),
        names.idx_j: data["senders"].long(),
        names.idx_m: data["molecule"].long(),
        names.n_atoms: torch.bincount(data["molecule"]),
        names.offsets: torch.zeros(edges, 3),
        names.cell: torch.zeros(molecules, 3, 3),
        names.pbc: torch.zeros(molecules, 3, dtype=torch.bool),
    }

    def step() -> float:
        optimizer.zero_grad()
        found = model({**inputs, names.R: data["positions"].clone()})
        loss = (found["forces"] - data["forces"]).abs().mean()
        loss = loss + 0.02 * (found["energy"] - data["energy"]).abs().mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    for _ in range(2):
        loss = step()
    facts = {"version": f"torch {torch.__version__}", "loss": loss}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
