"""``chemscale prepare``: a public data set, downloaded and written as ArrayRecord."""

import argparse

EXAMPLE = """example:
  chemscale prepare ani1x --out=data/tfds
  chemscale train --config=configs/painn_ani1x.py:full \\
      --config.data.source=tfds --config.data.path=data/tfds
"""


def main(argv: list[str]) -> int:
    """Downloads a data set, checks it and writes it, unless it is there already."""
    parser = argparse.ArgumentParser(
        prog="chemscale prepare",
        description="Downloads a data set and writes it as ArrayRecord (needs no "
        "TensorFlow). ANI-1x: 5.6 GB to download, and as much again to write.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", choices=["ani1x"], help="which data set")
    parser.add_argument("--out", required=True, help="folder to write to")
    arguments = parser.parse_args(argv)
    # TFDS takes a second to import, which --help should not.
    from chemscale_jax.data.frames import tfds_ani1x

    builder = tfds_ani1x.prepare(arguments.out)
    print(f"prepared in {builder.data_path}")
    return 0
