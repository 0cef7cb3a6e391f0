"""``chemscale sample``: generates molecules with a language model."""

import argparse
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from chemscale_jax.core.errors import UserError

if TYPE_CHECKING:
    from chemscale_jax.chem.prompts import Prompt
    from chemscale_jax.inference.sample import Molecule, Settings

EXAMPLE = """\
examples:
  chemscale sample --workdir=runs/my-run --num=1000 --out=generated.csv
  chemscale sample --workdir=runs/my-run --num=20 --prompt-file=leads.smi \\
      --prompt-length=10 --top-p=0.95
  chemscale sample --num=5 --prompt-smiles='CC(=O)Oc1ccccc1C(=O)O' --scaffold

Without --workdir the model that comes with the package is used; DIR may also be a
folder in the layout of Hugging Face, or hub:owner/name. The same seed gives the same
molecules. Prompts are cut where no index of a branch or ring is open, and "kept" says
whether a molecule holds what its prompt stands for.
"""
# With prompts and without.
_NUM, _NUM_FREE = 10, 1000
_LENGTH = "10"


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    # What follows takes seconds to import, which --help should not.
    import jax
    from tqdm import tqdm

    from chemscale_jax.core import partition, processes
    from chemscale_jax.data import cache
    from chemscale_jax.inference import sample
    from chemscale_jax.inference.language_model import open_language_model

    out = pathlib.Path(args.out)
    sample.check_writable(out)
    settings = _settings(args)
    processes.start(cache.cache_folder() / "xla")
    model = open_language_model(args.workdir, args.step)
    prompts = read_prompts(args, model.notation)
    mesh = partition.make_mesh() if jax.local_device_count() > 1 else None
    total = len(prompts) * settings.samples
    start = time.monotonic()
    with tqdm(total=total, unit="mol", desc="sample", dynamic_ncols=True) as bar:
        molecules = sample.sample(
            model,
            prompts,
            settings,
            mesh=mesh,
            processes=args.processes,
            on_rows=bar.update,
        )
    seconds = time.monotonic() - start
    sample.write_molecules(out, molecules)
    print(sample.summary(molecules, seconds))
    if args.metrics:
        print(f"\n{metrics_table(args, molecules)}")
    print(f"\nwritten to {out}")
    return 0


def metrics_table(args: argparse.Namespace, molecules: "list[Molecule]") -> str:
    """The metrics of MOSES for what was generated, beside what is given to compare."""
    from chemscale_jax.analysis.generation import generated_metrics
    from chemscale_jax.data.text.molecule_text import open_text, read_lines

    def read(path: str | None) -> list[str | None] | None:
        if path is None:
            return None
        lines = read_lines(open_text(path))
        return [None if line.reason else line.text for line in lines]

    sources = list(dict.fromkeys(m.source for m in molecules if m.source))
    metrics = generated_metrics.evaluate_molecules(
        [molecule.smiles or None for molecule in molecules],
        read(args.reference),
        read(args.train),
        sources or None,
        seed=args.seed,
        processes=args.processes,
    )
    return generated_metrics.metrics_table(metrics)


def read_prompts(args: argparse.Namespace, notation: str) -> "list[Prompt]":
    """The prompts that the command line asks for; one empty one if it asks for none.

    Raises:
        UserError: no molecule of those given can be a prompt.
    """
    from chemscale_jax.chem import prompts
    from chemscale_jax.inference.sample import NO_PROMPT

    given = list(_prompt_sources(args))
    found: list[Prompt] = []
    failures: list[str] = []
    for text in given:
        try:
            if args.scaffold:
                found.append(prompts.scaffold_prompt(text, notation))
            else:
                for length in args.prompt_length or [_LENGTH]:
                    rule = None if length == "all" else length
                    found.append(prompts.molecule_prompt(text, rule, notation))
        except ValueError as error:
            failures.append(str(error))
    for text in args.prompt_symbols:
        try:
            found.append(prompts.text_prompt(text, notation))
        except ValueError as error:
            failures.append(str(error))
    if failures and not found:
        raise UserError(f"no prompt can be used; the first: {failures[0]}")
    for failure in failures[:3]:
        print(f"warning: {failure}", file=sys.stderr)
    if len(failures) > 3:
        print(f"warning: {len(failures) - 3} more of these", file=sys.stderr)
    if args.prompt_file and not given:
        raise UserError(f"{args.prompt_file} has no molecule; give another file")
    return found or [NO_PROMPT]


def _prompt_sources(args: argparse.Namespace) -> Iterator[str]:
    yield from args.prompt_smiles
    if args.prompt_file:
        from chemscale_jax.data.text.molecule_text import open_text, read_lines

        for line in read_lines(open_text(args.prompt_file, args.prompt_column)):
            if line.text:
                yield line.text


def _settings(args: argparse.Namespace) -> "Settings":
    from chemscale_jax.inference.grammar import Grammar
    from chemscale_jax.inference.logit_filters import Filters
    from chemscale_jax.inference.sample import Settings

    prompted = args.prompt_smiles or args.prompt_file or args.prompt_symbols
    samples = args.num
    if samples is None:
        samples = args.num_beams or (_NUM if prompted else _NUM_FREE)
    if samples < 1:
        raise UserError(f"--num is {samples}; ask for 1 or more")
    if args.batch < 1:
        raise UserError(f"--batch is {args.batch}; make it 1 or more")
    return Settings(
        samples=samples,
        max_new=args.max_new,
        filters=Filters(
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            min_p=args.min_p,
            repetition_penalty=args.repetition_penalty,
        ),
        greedy=args.greedy,
        num_beams=args.num_beams,
        length_penalty=args.length_penalty,
        early_stopping={"no": False, "yes": True, "never": "never"}[
            args.early_stopping
        ],
        beam_groups=args.beam_groups,
        diversity=args.diversity,
        grammar=Grammar(
            closed=args.closed,
            max_atoms=args.max_atoms,
            elements=tuple(filter(None, args.elements.split(","))),
            neutral=args.no_charge,
        ),
        seed=args.seed,
        batch_rows=args.batch,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chemscale sample",
        description="Generate molecules with a language model, from nothing or from "
        "prompts.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", metavar="DIR", help="of a run, or another folder of a model")
    add("--step", type=int, metavar="N", help="of a checkpoint (default: the best)")
    add(
        "--num",
        type=int,
        metavar="N",
        help="molecules, of each prompt if there are prompts (default: 1000, 10 of "
        "each prompt, or all beams)",
    )
    default = "default: %(default)s"
    add("--out", default="generated.csv", help=f".csv or .smi ({default})")
    add("--seed", type=int, default=0, help=default)
    add("--max-new", type=int, default=256, metavar="N", help=f"tokens ({default})")
    add("--batch", type=int, default=256, metavar="N", help=f"at once ({default})")
    add("--processes", type=int, metavar="N", help="that read molecules (default: all)")
    _add_choice(parser.add_argument_group("how tokens are chosen"))
    _add_prompts(parser.add_argument_group("prompts"))
    _add_grammar(parser.add_argument_group("what a molecule may be"))
    group = parser.add_argument_group("metrics")
    group.add_argument("--reference", metavar="FILE", help="molecules to compare with")
    group.add_argument("--train", metavar="FILE", help="training set, for novelty")
    group.add_argument(
        "--no-metrics",
        dest="metrics",
        action="store_false",
        help="print the summary only; see also chemscale evaluate",
    )
    return parser


def _add_choice(group: Any) -> None:
    add, default = group.add_argument, "default: %(default)s"
    add("--temperature", type=float, default=1.0, metavar="T", help=default)
    add("--top-k", type=int, default=0, metavar="K", help="0: all tokens (default)")
    add("--top-p", type=float, default=1.0, metavar="P", help=default)
    add("--min-p", type=float, default=0.0, metavar="P", help=default)
    add(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="R",
        help="rarely of use: SELFIES must repeat symbols (default: %(default)s)",
    )
    add("--greedy", action="store_true", help="take the likeliest token, draw none")
    add("--num-beams", type=int, default=0, metavar="N", help="search, draw none")
    add("--length-penalty", type=float, default=1.0, metavar="X", help=default)
    add(
        "--early-stopping",
        choices=("no", "yes", "never"),
        default="no",
        help="when a search has enough beams (default: %(default)s)",
    )
    add("--beam-groups", type=int, default=1, metavar="N", help=default)
    add("--diversity", type=float, default=0.0, metavar="X", help="of beam groups")


def _add_prompts(group: Any) -> None:
    add = group.add_argument
    repeated = {"action": "append", "default": []}
    add("--prompt-smiles", metavar="SMILES", help="may be repeated", **repeated)
    add("--prompt-file", metavar="FILE", help="csv, smi, txt or parquet of SMILES")
    add("--prompt-column", default="", metavar="NAME", help="of the SMILES")
    add(
        "--prompt-length",
        metavar="N",
        help="symbols of each molecule: a number, l-3 for all but three, or all; may "
        f"be repeated (default: {_LENGTH})",
        **repeated,
    )
    add("--scaffold", action="store_true", help="prompt with the Murcko scaffold")
    add("--prompt-symbols", metavar="TEXT", help="SELFIES, as it is", **repeated)


def _add_grammar(group: Any) -> None:
    add = group.add_argument
    add("--closed", action="store_true", help="no end inside a branch or ring index")
    add("--max-atoms", type=int, default=0, metavar="N", help="heavy atoms at most")
    add("--elements", default="", metavar="C,N,O", help="allowed (default: all)")
    add("--no-charge", action="store_true", help="no charged atoms")
