import pytest

from chemscale_jax.chem.vocabulary import SPECIALS, Vocabulary
from chemscale_jax.commands import tokenize
from chemscale_jax.core.errors import UserError
from chemscale_jax.data.text.token_store import TokenStore
from chemscale_jax.data.text.vocabulary_file import read_vocabulary

TABLE = "name,structure_text\nethanol,CCO\nnothing,\nphenol,Oc1ccccc1\namine,CN\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


def run(table, out, *more):
    flags = ["--column=structure_text", "--workers=0", f"--out={out}"]
    return tokenize.main([str(table), *flags, *more])


def test_the_summary_tells_everything(table, tmp_path, capsys):
    assert run(table, tmp_path / "store") == 0
    printed = capsys.readouterr().out.splitlines()
    folder = tmp_path / "store"
    assert printed[0] == (
        f"lines       4: 3 stored, 1 in {folder}/ledger.csv (1 empty)"
    )
    assert printed[1] == "symbols     14 of selfies, 4.7 per molecule"
    assert printed[2] == "vocabulary  11 tokens; unknown: none"
    assert printed[3] == ("round trip  3 of 3 molecules come back the same (100.00%)")
    assert printed[4].endswith("lines per core-second")
    assert printed[5] == f"written to  {folder}"
    assert TokenStore.open(folder).lines.tolist() == [2, 4, 5]
    # Given again, it says the same without work.
    assert run(table, tmp_path / "store") == 0
    again = capsys.readouterr().out.splitlines()
    assert again == printed[:4] + printed[5:]


def test_unknown_symbols_are_printed(table, tmp_path, capsys):
    Vocabulary((*SPECIALS, "[C]", "[O]"), "selfies").save(tmp_path / "vocabulary.json")
    given = f"--vocabulary={tmp_path}"
    assert run(table, tmp_path / "a", given) == 0
    printed = capsys.readouterr().out
    assert "4: 1 stored, 3 in" in printed
    assert "(2 unknown_symbol, 1 empty)" in printed
    assert "4 symbols in 2 molecules, which are in the ledger: [=C] " in printed
    assert run(table, tmp_path / "b", given, "--on-unknown=keep") == 0
    printed = capsys.readouterr().out
    assert "2 molecules, which are kept as [UNK]" in printed
    assert "1 of 3 molecules come back the same (33.33%)" in printed
    with pytest.raises(UserError, match="--on-unknown=drop leaves such molecules out"):
        run(table, tmp_path / "c", given, "--on-unknown=fail")


def test_the_notation_is_that_of_the_vocabulary(table, tmp_path, capsys):
    assert run(table, tmp_path / "a", "--notation=smiles") == 0
    given = f"--vocabulary={tmp_path / 'a'}"
    assert run(table, tmp_path / "b", given) == 0
    assert TokenStore.open(tmp_path / "b").info["notation"] == "smiles"
    with pytest.raises(UserError, match="give --notation=smiles"):
        run(table, tmp_path / "c", given, "--notation=selfies")
    capsys.readouterr()


def test_a_run_that_is_stopped_says_how_to_go_on(table, tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenize, "tokenize_source", stopped)
    assert run(table, tmp_path / "store") == 130
    assert "store.parts, and the same command goes on" in capsys.readouterr().err


def test_vocabularies_that_are_none(tmp_path):
    file = tmp_path / "v.json"
    for content, complaint in (
        (None, "cannot read the vocabulary"),
        ("{", "is no vocabulary"),
        ("[]", "is no vocabulary"),
        ('{"tokens": []}', "is no vocabulary"),
        ('{"model": {"type": "BPE"}}', "is no vocabulary"),
    ):
        if content is not None:
            file.write_text(content)
        with pytest.raises(UserError, match=complaint) as caught:
            read_vocabulary(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="neither vocabulary.json nor tokenizer.json"):
        read_vocabulary(tmp_path)
