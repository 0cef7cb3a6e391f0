"""schnetpack's PaiNN and SchNet for force_field_step.py, which starts this file."""

import argparse
import importlib
import json
import typing
import warnings

import numpy as np
from turns import serve

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


def representation_of(fields: dict) -> typing.Any:
    """The network of the given fields of ``config.model``."""
    kinds = {"painn": representation.PaiNN, "schnet": representation.SchNet}
    bases = {"painn": snn.BesselRBF, "schnet": snn.GaussianRBF}
    name, cutoff = fields["name"], fields["cutoff_ang"]
    return kinds[name](
        n_atom_basis=fields["width"],
        n_interactions=fields["depth"],
        radial_basis=bases[name](fields["n_rbf"], cutoff),
        cutoff_fn=snn.CosineCutoff(cutoff),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames")
    parser.add_argument("--model", type=json.loads)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true", help="try torch.compile")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with np.load(args.frames) as file:
        data = {k: torch.tensor(file[k]) for k in file.files if "/" not in k}
    molecules, edges = len(data["energy"]), len(data["senders"])
    network = representation_of(args.model)
    model = potential(
        representation=torch.compile(network) if args.compile else network,
        input_modules=[atomistic.PairwiseDistances()],
        output_modules=[
            atomistic.Atomwise(n_in=args.model["width"], output_key="energy"),
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

    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    serve(step, {"version": f"torch {torch.__version__}", "parameters": parameters})


if __name__ == "__main__":
    main()
