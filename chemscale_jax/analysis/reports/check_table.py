"""The part of a model card that shows what the model check measured."""

from chemscale_jax.analysis.markdown import markdown_table
from chemscale_jax.core.workdir import Workdir, read_json


def check_section(workdir: Workdir) -> str:
    """The section in Markdown; empty where the model was not checked."""
    if not workdir.check_json.exists():
        return ""
    found = read_json(workdir.check_json)
    rows = [
        (
            line["name"],
            "not finite" if line["value"] is None else f"{line['value']:.2g}",
            f"{line['tolerance']:.2g}",
            line["unit"],
            "ok" if line["ok"] else "**not ok**",
            line["meaning"],
        )
        for line in found["lines"]
    ]
    header = ("property", "value", "tolerance", "unit", "verdict", "meaning")
    notes = "".join(f"- Left out: {note}\n" for note in found["notes"])
    return (
        "\n## Model check\n\n"
        f"Measured on {', '.join(found['molecules'])}.\n\n"
        f"{markdown_table(header, rows)}\n" + (f"\n{notes}" if notes else "")
    )
