"""The commands of ``chemscale``, one thin file each.

Every file has ``main(argv) -> exit status`` and a ``--help`` that shows an example.
"""

# Command: what it does. A command is imported when it is called.
COMMANDS = {
    "train": "train a model from a config; the same as python -m chemscale_jax.main",
    "report": "write table, plots and card of a run again",
    "prepare": "download ANI-1x and write it as ArrayRecord, for random access",
    "generate": "make a data set of GFN2-xTB frames, such as the embedded one",
}
