"""The authors' SpookyNet for force_field_step.py, which starts this file.

It is no package: ``--peer-path`` names a checkout of OUnke/SpookyNet.
"""

import argparse
import importlib
import importlib.util
import json
import sys
import types
import typing
import warnings

import numpy as np
from turns import serve

# Loaded by name, since the environment of this package does not have them.
load: typing.Callable[[str], typing.Any] = importlib.import_module
torch = load("torch")
warnings.filterwarnings("ignore")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames")
    parser.add_argument("--model", type=json.loads)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--peer-path", help="checkout of the reference")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    args = parser.parse_args()
    sys.path.insert(0, args.peer_path)
    # Its ASE calculator asks for scikit-learn, which a training step does not need.
    stubs = {
        name: types.ModuleType(name)
        for name in ("sklearn", "sklearn.neighbors")
        if importlib.util.find_spec("sklearn") is None
    }
    for stub in stubs.values():
        vars(stub)["BallTree"] = None
    sys.modules.update(stubs)
    network_class = load("spookynet").SpookyNet
    for name in stubs:
        del sys.modules[name]
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with np.load(args.frames) as file:
        data = {k: torch.tensor(file[k]) for k in file.files if "/" not in k}
    fields = args.model
    network = network_class(
        num_features=fields["width"],
        num_basis_functions=fields["n_rbf"],
        num_modules=fields["depth"],
        cutoff=fields["cutoff_ang"],
        use_zbl_repulsion=fields["zbl"],
        use_electrostatics=fields["electrostatics"],
        use_d4_dispersion=fields["d4"],
        zero_init=fields["zero_init"],
    ).to(torch.float32)
    network.train()
    # It looks up pairs itself, those within the cut-off for the network.
    kind = "pair_" if "pair_receivers" in data else ""
    inputs = {
        "Z": data["species"].long(),
        "Q": data["charge"],
        "S": data["spin"],
        "idx_i": data[f"{kind}receivers"].long(),
        "idx_j": data[f"{kind}senders"].long(),
        "num_batch": len(data["energy"]),
        "batch_seg": data["molecule"].long(),
    }
    run = network.energy_and_forces
    if args.compile:
        run = torch.compile(run)
    optimizer = torch.optim.Adam(
        [p for p in network.parameters() if p.requires_grad], 1e-3
    )

    def step() -> float:
        optimizer.zero_grad()
        positions = data["positions"].clone().requires_grad_()
        energy, forces, *_ = run(R=positions, create_graph=True, **inputs)
        loss = (forces - data["forces"]).abs().mean()
        loss = loss + 0.02 * (energy - data["energy"]).abs().mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    serve(step, {"version": f"torch {torch.__version__}", "parameters": parameters})


if __name__ == "__main__":
    main()
