"""The commands of ``chemscale``, one thin file each.

Every file has ``main(argv) -> exit status`` and a ``--help`` that shows an example.
"""

import importlib
from types import ModuleType

# Command: what it does. A command is imported when it is called.
COMMANDS = {
    "train": "train a model from a config; the same as python -m chemscale_jax.main",
    "finetune": "learn properties of molecules from a table, with uncertainties",
    "report": "write table, plots and card of a run again",
    "compare": "compare the runs of a sweep, with intervals of their differences",
    "study": "train model sizes x amounts of data x seeds, and fit scaling laws",
    "plan": "print what the cells of a study cost on a stated device",
    "sweep": "train many runs, each as far as it is worth it",
    "tpe": "rank runs by their early losses and predict their final ones",
    "regret": "compare policies that stop runs early, by their cost and regret",
    "fit": "fit scaling laws to the runs of a study, with intervals and limits",
    "prepare": "download ANI-1x and write it as ArrayRecord, for random access",
    "generate": "make a data set of GFN2-xTB frames, such as the embedded one",
    "tokenize": "turn a file of SMILES into tokens to train a language model on",
    "conformers": "make geometries of the molecules of a file, to pretrain on",
    "scaffolds": "compare molecules and Murcko scaffolds of two sets, with plots",
    "sample": "generate molecules with a language model",
    "embed": "write embeddings of molecules, atoms and pairs of a molecule model",
    "map": "draw maps of embeddings, and measure how well they know labels",
    "index": "build an index of embeddings, for similarity search",
    "search": "find the most similar molecules of an index",
    "neighbours": "compare properties of molecules and of their nearest neighbours",
    "probe": "learn properties from embeddings, beside fingerprints, in folds",
    "predict": "predict properties of molecules with a finetuned network",
    "score": "give the exact log-likelihood of molecules",
    "evaluate": "measure generated molecules: filters, diversity, distances",
    "prompt-study": "compare prompts, sampling settings and sizes of language models",
    "md": "relax or move a molecule with a force field, or find its vibrations",
    "export": "write a trained model in a form that other programs read",
    "pack": "copy what is needed to use a trained model into a small folder",
    "check": "measure symmetries, conservation and smoothness of a force field",
    "import": "make a workdir of other people's weights, such as a torch file",
}
# Words of Python and words with hyphens cannot name a file.
_FILES = {"import": "import_weights", "prompt-study": "prompt_study"}


def load(name: str) -> ModuleType:
    """The file of a command."""
    return importlib.import_module(f"{__name__}.{_FILES.get(name, name)}")
