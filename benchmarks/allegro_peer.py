"""nequip-allegro for force_field_step.py, which starts this file."""

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
names = load("nequip.data").AtomicDataDict
global_state = load("nequip.utils.global_state")
allegro_model = load("allegro.model").AllegroModel

SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O"}


def model_of(fields: dict, compiled: bool) -> typing.Any:
    """The network of the given fields of ``config.model``, form 2025."""
    width, channels = fields["width"], fields["channels"]
    return allegro_model(
        seed=0,
        model_dtype="float32",
        compile_mode="compile" if compiled else "eager",
        r_max=fields["cutoff_ang"],
        type_names=[SYMBOLS[z] for z in fields["elements"]],
        l_max=fields["l_max"],
        parity=True,
        radial_chemical_embed={
            "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
            "num_bessels": fields["n_bessel"],
        },
        scalar_embed_mlp_hidden_layers_width=width,
        num_layers=fields["depth"],
        num_scalar_features=width,
        num_tensor_features=channels,
        allegro_mlp_hidden_layers_width=width,
        readout_mlp_hidden_layers_width=fields["readout"][0],
        avg_num_neighbors=fields["avg_num_neighbors"],
        per_type_energy_scales=fields["energy_scale"],
        per_type_energy_shifts=0.0,
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
    global_state.set_global_state(allow_tf32=False)
    with np.load(args.frames) as file:
        data = {k: torch.tensor(file[k]) for k in file.files if "/" not in k}
    types = torch.zeros(1 + max(args.model["elements"]), dtype=torch.long)
    for place, number in enumerate(args.model["elements"]):
        types[number] = place
    model = model_of(args.model, args.compile)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    # nequip keeps lengths and coordinates in float64 and the network in float32.
    inputs = {
        names.POSITIONS_KEY: data["positions"].double(),
        names.ATOM_TYPE_KEY: types[data["species"].long()],
        names.BATCH_KEY: data["molecule"].long(),
        names.NUM_NODES_KEY: torch.bincount(data["molecule"]),
        names.EDGE_INDEX_KEY: torch.stack(
            [data["receivers"].long(), data["senders"].long()]
        ),
    }

    def step() -> float:
        optimizer.zero_grad()
        found = model({key: value.clone() for key, value in inputs.items()})
        forces, energy = found[names.FORCE_KEY], found[names.TOTAL_ENERGY_KEY][:, 0]
        loss = (forces - data["forces"]).abs().mean()
        loss = loss + 0.02 * (energy - data["energy"]).abs().mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    serve(step, {"version": f"torch {torch.__version__}", "parameters": parameters})


if __name__ == "__main__":
    main()
