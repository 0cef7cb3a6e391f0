"""GPT-Neo of ``transformers`` for gpt_step.py and gpt_sampling.py, which start this.

It reads a folder in the layout of Hugging Face, and knows nothing of this package.
"""

import argparse
import importlib
import itertools
import time
import typing
import warnings
from collections.abc import Callable

import numpy as np
from turns import serve

# Loaded by name, since the environment of this package does not have them.
load: typing.Callable[[str], typing.Any] = importlib.import_module
torch = load("torch")
transformers = load("transformers")
warnings.filterwarnings("ignore")
IGNORED = -100  # label of a place that is not predicted


def matmul_gflop_s(rows: int, inner: int, columns: int) -> float:
    """The best rate of a float32 matrix product of this shape."""
    a, b = torch.ones(rows, inner), torch.ones(inner, columns)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        torch.matmul(a, b)
        seconds.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / min(seconds) / 1e9


def training(args: argparse.Namespace, model: typing.Any) -> tuple[Callable, dict]:
    """A function that trains on the next batch, and facts.

    Each batch is padded to its longest molecule, or to ``--pad-to``. Padding comes
    after the molecule, where causal attention does not see it, so no mask is given:
    that saves the peer a pass over the scores.
    """
    with np.load(args.batches) as file:
        arrays = [file[name] for name in sorted(file.files)]
    batches = []
    for array in arrays:
        width = max(args.pad_to, array.shape[1])
        array = np.pad(
            array,
            ((0, 0), (0, width - array.shape[1])),
            constant_values=args.pad,
        )
        tokens = torch.tensor(array, dtype=torch.long)
        batches.append((tokens, tokens.masked_fill(tokens == args.pad, IGNORED)))
    model.train()
    forward = torch.compile(model, dynamic=True) if args.compile else model

    def loss_of(tokens: typing.Any, labels: typing.Any) -> typing.Any:
        return forward(input_ids=tokens, labels=labels, use_cache=False).loss

    with torch.no_grad():
        first = float(loss_of(*batches[0]))
    # One pass over all parameters; the default of torch makes one for each.
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=args.lr,
        betas=(0.9, args.b2),
        weight_decay=args.weight_decay,
        fused=True,
    )
    # Two steps of warm-up come before the first that is timed.
    turn = itertools.islice(itertools.cycle(batches), -2 % len(batches), None)

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(*next(turn))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    D = model.config.hidden_size
    facts = {
        "first_loss": first,
        "shapes": [list(tokens.shape) for tokens, _ in batches],
        "matmul_gflop_s": matmul_gflop_s(2048, 2048, 2048),
        "narrow_matmul_gflop_s": matmul_gflop_s(8192, D, 4 * D),
    }
    return step, facts


def sampling(args: argparse.Namespace, model: typing.Any) -> tuple[Callable, dict]:
    """A function that draws ``--rows`` molecules, and facts: their mean lengths."""
    model.eval()
    begin = torch.full((args.rows, 1), args.begin)
    stops = args.end >= 0
    settings = transformers.GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        use_cache=True,
        max_new_tokens=args.max_new,
        eos_token_id=args.end if stops else None,
        pad_token_id=args.pad,
    )
    # What the settings leave out would be taken from the model's own.
    model.generation_config = settings
    seeds = itertools.cycle(range(args.seeds))
    # Seeds start with 0 after the two steps of warm-up.
    seeds = itertools.islice(seeds, -2 % args.seeds, None)
    mean_tokens: list[float] = []

    def step() -> float:
        torch.manual_seed(next(seeds))
        with torch.inference_mode():
            # All places are real: without a mask the peer would guess from the ids.
            found = model.generate(
                begin, attention_mask=torch.ones_like(begin), generation_config=settings
            )[:, 1:]
        ended = (found == args.end).any(1)
        lengths = torch.where(
            ended, (found == args.end).int().argmax(1) + 1, found.shape[1]
        )
        mean_tokens.append(float(lengths.float().mean()))
        return mean_tokens[-1]

    # Those of the steps of warm-up, to compare with the other side.
    return step, {"mean_tokens": mean_tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--pad", type=int, required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batches", help="npz of token ids, to train on")
    parser.add_argument("--pad-to", type=int, default=0)
    for name in ("--lr", "--b2", "--weight-decay"):
        parser.add_argument(name, type=float, default=0.0)
    for name in ("--rows", "--begin", "--end", "--max-new", "--seeds"):
        parser.add_argument(name, type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = transformers.GPTNeoForCausalLM.from_pretrained(
        args.model, dtype=torch.float32
    )
    step, facts = (training if args.batches else sampling)(args, model)
    parameters = sum(p.numel() for p in model.parameters())
    version = f"torch {torch.__version__}, transformers {transformers.__version__}"
    serve(step, {"version": version, "parameters": parameters, **facts})


if __name__ == "__main__":
    main()
