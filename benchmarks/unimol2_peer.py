"""The authors' Uni-Mol2 for unimol2_step.py, which starts this file.

It is no package: ``--peer-path`` names a folder with checkouts of deepmodeling/Uni-Mol
and dptech-corp/Uni-Core. Only their model is loaded; their trainer, registries and data
loaders, which need more packages, are left out.
"""

import argparse
import importlib
import json
import pathlib
import resource
import sys
import types
import typing
import warnings

import numpy as np
from turns import serve
from unimol2_step import read_batches

# Loaded by name, since the environment of this package does not have them.
load: typing.Callable[[str], typing.Any] = importlib.import_module
torch = load("torch")
warnings.filterwarnings("ignore")


def bare(name: str, folder: pathlib.Path) -> typing.Any:
    """A package whose modules can be imported, without what its __init__ does."""
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    return package


def model_class(path: pathlib.Path) -> typing.Any:
    """Their class of the model."""
    unicore = bare("unicore", path / "Uni-Core" / "unicore")
    registry = types.ModuleType("unicore.models")
    nothing = lambda *_: lambda decorated: decorated
    vars(registry).update(
        BaseUnicoreModel=torch.nn.Module,
        register_model=nothing,
        register_model_architecture=nothing,
    )
    sys.modules["unicore.models"] = registry
    vars(unicore).update(utils=load("unicore.utils"))
    bare("unimol2", path / "Uni-Mol" / "unimol2" / "unimol2")
    return load("unimol2.models.unimol2").UniMol2Model


def arguments_of(fields: dict[str, int]) -> argparse.Namespace:
    """What their constructor takes; the rest is their default."""
    return argparse.Namespace(
        encoder_layers=fields["depth"],
        encoder_embed_dim=fields["width"],
        encoder_attention_heads=fields["heads"],
        encoder_ffn_embed_dim=fields["hidden"],
        pair_embed_dim=fields["pair_width"],
        pair_hidden_dim=fields["pair_hidden"],
        droppath_prob=0.0,
        masked_token_loss=1.0,
        masked_coord_loss=1.0,
        masked_dist_loss=1.0,
        mode="train",
    )


def inputs_of(batch: dict[str, np.ndarray]) -> dict[str, typing.Any]:
    """A batch as their collater makes it."""
    tensors = {name: torch.tensor(array) for name, array in batch.items()}
    mask = tensors["species"] > 0
    rows, places = mask.shape
    seen = torch.cat([torch.ones(rows, 1, dtype=torch.bool), mask], dim=1)
    bias = torch.zeros(rows, places + 1, places + 1)
    bias = bias.masked_fill(~seen[:, None, :], float("-inf"))
    first = tensors["atom"][..., 0].long()
    kinds = torch.broadcast_tensors(first[:, :, None] + 1, first[:, None, :] + 129)
    return {
        "src_token": tensors["species"].long(),
        "atom_feat": tensors["atom"].long(),
        "edge_feat": tensors["bond"].long(),
        "shortest_path": tensors["path"].long(),
        "degree": tensors["degree"].long(),
        "pair_type": torch.stack(kinds, dim=-1),
        "atom_mask": mask.float(),
        "attn_bias": bias,
        "src_pos": tensors["positions"],
        "target_token": tensors["target_token"].long(),
        "target_pos": tensors["target_positions"],
    }


def loss_of(model: typing.Any, data: dict[str, typing.Any]) -> typing.Any:
    """The three terms of pretraining."""
    chosen = data["target_token"] > 0
    logits, distance, moved = model(data, encoder_masked_tokens=chosen)
    token = torch.nn.functional.cross_entropy(logits, data["target_token"][chosen])
    mask, target = data["atom_mask"], data["target_pos"]
    count = mask.sum(1)
    apart = (moved - target).abs().sum(2) * mask
    coordinate = (apart.sum(1) / count).mean()
    true = (target[:, None] - target[:, :, None]).norm(dim=-1)
    apart = (distance - true).abs() * mask[:, None] * mask[:, :, None]
    return token + coordinate + (apart.sum((1, 2)) / count**2).mean()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=pathlib.Path)
    parser.add_argument("--model", type=json.loads)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--peer-path", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = model_class(args.peer_path)(arguments_of(args.model))
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), 1e-4, betas=(0.9, 0.99), weight_decay=1e-4
    )
    batches = [inputs_of(batch) for batch in read_batches(args.batches, "same")]
    counter = load("torch.utils.flop_counter").FlopCounterMode(display=False)
    with counter:
        loss_of(model, batches[0]).backward()
    facts: dict[str, typing.Any] = {
        "version": f"torch {torch.__version__}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop_per_molecule_of_first_batch": counter.get_total_flops()
        / len(batches[0]["src_token"])
        / 1e9,
    }
    optimizer.zero_grad()

    def step() -> float:
        loss = None
        for data in batches:
            optimizer.zero_grad()
            loss = loss_of(model, data)
            loss.backward()
            optimizer.step()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        facts["peak_mb"] = usage.ru_maxrss / 1e3
        return float(loss.detach()) if loss is not None else 0.0

    serve(step, facts)


if __name__ == "__main__":
    main()
