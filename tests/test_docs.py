"""Links and commands in README and docs/ work; the command reference is fresh."""

import pathlib
import re
import shlex

import pytest

from chemscale_jax import main
from chemscale_jax.commands import COMMANDS
from chemscale_jax.core.workdir import METRIC_FIELDS, SCHEMA_VERSION
from chemscale_jax.training.setup import describe_run
from docs import make_commands
from launch import local, slurm, xm_launch

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What stands before the arguments, in a line of a page.
TRAINERS = ("python -m chemscale_jax.main", "chemscale train")
LAUNCHERS = {
    "python launch/local.py": local.main,
    "python launch/slurm.py": slurm.main,
    "python launch/xm_launch.py": xm_launch.main,
}
# Commands that pass fields of a config on to the runs they start.
MANY_RUNS = ("sweep", "study", "plan")


def links():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if not re.match(r"[a-z]+:", target):
                yield pytest.param(page, target, id=f"{page.name}:{target}")


def commands():
    """Every command of ours in a page, in a block of commands or in the text."""
    for page in PAGES:
        if page == make_commands.TARGET:
            continue
        text = page.read_text().replace("\\\n", " ")
        # Blocks are at odd places between fences.
        fenced = re.split(r"^```.*$", text, flags=re.MULTILINE)
        code = [line for block in fenced[1::2] for line in block.splitlines()]
        code += re.findall(r"`([^`\n]+)`", "".join(fenced[::2]))
        for line in code:
            for part in line.split("&&"):
                part = part.strip().removeprefix(".venv/bin/")
                if part.startswith(
                    ("chemscale ", "python -m chemscale", "python launch")
                ):
                    yield pytest.param(part, id=part)


def slug(heading):
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def check(line):
    """Parses a command as the program would, without running it."""
    line = re.sub(r"^python -m chemscale_jax (?=\w)", "chemscale ", line)
    for start in TRAINERS:
        if line.startswith(f"{start} "):
            arguments = shlex.split(line.removeprefix(start))
            main.parse(main.take_run_flags(["chemscale", *arguments])[1])
            return
    for start, launcher in LAUNCHERS.items():
        if line.startswith(f"{start} "):
            # In front, since what follows -- is another command.
            arguments = shlex.split(line.removeprefix(start))
            assert launcher(["--dry-run", *arguments]) == 0
            return
    if line.startswith("python -m chemscale_jax"):
        return  # names a program, without arguments
    _, name, *arguments = shlex.split(line)
    if name in ("COMMAND", "--list-configs", "--help"):
        return
    assert name in COMMANDS, f"there is no command {name}"
    known = dict(make_commands.helps())[f"chemscale {name}"]
    if name in MANY_RUNS and arguments:
        config = [a for a in arguments if a.startswith(("--config=", "--config."))]
        main.parse(["chemscale", *config])
        arguments = [a for a in arguments if not a.startswith("--config.")]
    for argument in arguments:
        flag = argument.split("=")[0]
        assert not flag.startswith("-") or flag in known.split(), (
            f"{name} has no {flag}"
        )


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_every_link_leads_somewhere(page, target):
    file, _, anchor = target.partition("#")
    path = (page.parent / file).resolve() if file else page
    assert path.exists(), f"{page.name} links to {target}"
    if anchor:
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
        assert anchor in map(slug, headings)


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_parses(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(line)


def test_checks_of_commands_can_fail():
    assert len(list(commands())) > 10
    for line in (
        "python -m chemscale_jax.main --config=configs/no_such.py",
        "chemscale train --config=configs/painn_ani1x.py:smoke,widht=2",
        "chemscale train --config=configs/painn_ani1x.py --config.optimizer.lrr=1",
        "chemscale report --wordkir=DIR",
        "chemscale no_such",
        "python launch/local.py --config=configs/no_such.py --workdir=x",
        "python launch/slurm.py --config=configs/painn_ani1x.py --workdir=x --nods=2",
    ):
        with pytest.raises((AssertionError, ValueError)):
            check(line)


def test_every_page_is_listed():
    index = (ROOT / "docs" / "index.md").read_text()
    for page in PAGES:
        if page.name not in ("README.md", "index.md"):
            assert f"({page.name})" in index


def test_the_command_reference_is_fresh():
    assert make_commands.TARGET.read_text() == make_commands.text(), (
        "run python docs/make_commands.py, on Python 3.11"
    )


def test_the_workdir_page_names_every_field():
    text = (ROOT / "docs" / "workdir.md").read_text()
    assert f"version {SCHEMA_VERSION}," in text
    for field in (*METRIC_FIELDS, *describe_run()):
        assert f"`{field}`" in text, field


def test_pages_count_the_embedded_set_as_its_card_does():
    card = (ROOT / "chemscale_jax/data/embedded/CARD.md").read_text()
    facts = dict(re.findall(r"^\| ([\w ]+) \| (\d+) \|$", card, re.MULTILINE))
    frames = f"{int(facts['frames']):,}"
    for page in ("README.md", "docs/force_fields.md"):
        text = " ".join((ROOT / page).read_text().split())
        assert f"{frames} GFN2-xTB frames of {facts['molecules']}" in text, page


def test_the_main_command_is_one_line_that_starts_from_nothing():
    """.ci/run takes the first two commands of README's first block."""
    text = (ROOT / "README.md").read_text()
    block = text.split("```")[1].splitlines()[1:]
    first, second, *_ = [line for line in block if line and not line.startswith("#")]
    assert first == (
        "python3.11 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && "
        ".venv/bin/python -m chemscale_jax.main --config=configs/painn_ani1x.py"
    )
    assert second == ".venv/bin/python -m pytest -n auto"
