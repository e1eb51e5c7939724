"""The documents: links lead somewhere, commands parse with the real command line, a newcomer finds the first step."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [path for path in DOCUMENTS if path.exists()]
SCREEN_LINES = 45  # of a README as a repository's page shows it, before anybody scrolls far


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_blocks(text: str) -> list[str]:
    """What stands between fences, whatever its language."""
    return re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    return re.findall(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)", prose(text))


def commands(text: str) -> list[list[str]]:
    """Words of each `prune-cli ...` in a code block: of shells, without prompt, comment and what follows in a pipe."""
    found = []
    for block in code_blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*prune-cli\b(.*)", line)
            if match:
                words = shlex.split(match[1], comments=True)
                ends = [index for index, word in enumerate(words) if word in ("|", ">", "&&", ";", "2>")]
                found.append(words[: min(ends, default=len(words))])
    return found


def inline_commands(text: str) -> list[list[str]]:
    """Words of each `prune-cli command --flags` within a sentence, where a reader may have to fill something in."""
    return [shlex.split(match) for match in re.findall(r"`prune-cli ([a-z][^`]*)`", prose(text))]


def headings(text: str) -> set[str]:
    """Anchors, as a repository's page makes them of headings."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def parse(words: list[str]) -> None:
    """Parse as the command line does, and run nothing. Raises a usage error."""
    group = typer.main.get_command(cli.app)
    command = group.commands.get(words[0])
    assert command is not None, f"there is no command {words[0]}"
    if "--help" not in words:
        command.make_context(words[0], words[1:])


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_of_a_document_resolve(path: Path):
    text = path.read_text()
    broken = []
    for link in links(text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = (path.parent / target).resolve() if target else path
        is_there = place.exists() and place.is_relative_to(ROOT)
        if not is_there or (anchor and place.suffix == ".md" and anchor not in headings(place.read_text())):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_commands_of_a_document_parse(path: Path):
    for words in commands(path.read_text()):
        parse(words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_commands_within_sentences_name_what_exists(path: Path):
    group = typer.main.get_command(cli.app)
    for words in inline_commands(path.read_text()):
        assert words[0] in group.commands, words
        known = {option for one in group.commands[words[0]].params for option in one.opts} | {"--help"}
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, words


def test_a_command_that_does_not_parse_would_be_found():
    for words in (["sweep", "lenet5", "--nothing"], ["sweep"], ["sweep", "lenet5", "--delta", "much"]):
        with pytest.raises(Exception, match=r"(?i)no such option|missing|valid"):
            parse(words)


def test_make_targets_that_documents_name_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for path in DOCUMENTS
        for target in re.findall(r"(?:`|^\$ )make ([a-z-]+)", path.read_text(), re.MULTILINE)
    }
    assert named <= targets


def test_first_screen_of_the_readme_says_how_to_run_and_how_to_test():
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:SCREEN_LINES])
    assert "make sweep" in first
    assert "make test" in first
    assert "prune-cli sweep" in first


def test_documents_name_sweeps_and_models_that_exist():
    from raypruning.app.sweep_files import sweep_names
    from raypruning.models.resolve import model_names

    known = {*sweep_names(), *model_names()}
    for path in DOCUMENTS:
        for words in commands(path.read_text()):
            if words[0] == "sweep" and len(words) > 1 and not words[1].endswith(".toml"):
                assert words[1] in known, f"{name(path)}: {' '.join(words)}"


def documented_sweeps() -> list[list[str]]:
    """Words of each documented `prune-cli sweep` that can be tried here: on data that is in the package."""
    found = [words for path in DOCUMENTS for words in commands(path.read_text()) if words[0] == "sweep"]
    needs_more = ("--data-dir", "--dataset", "--address", "--gpus-per-probe")
    found = [words for words in found if words[1:] and not words[1].endswith(".toml") and "--help" not in words]
    found = [words for words in found if not any(word in needs_more for word in words)]
    return [list(words) for words in dict.fromkeys(tuple(words) for words in found)]


def test_there_are_documented_sweeps_to_try():
    assert len(documented_sweeps()) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("words", documented_sweeps(), ids=" ".join)
def test_documented_sweep_is_one_that_would_run(
    words: list[str], prune_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A dry run resolves every name and tries every method on the network; how long it would take is not looked at."""
    from raypruning.training import speed

    monkeypatch.setattr(speed, "measure_speed", lambda *args, **about: speed.Speed(train=1.0, evaluate=1.0))
    where = ["--executor", "inline", "--tracking-uri", "none", "--storage", tmp_path / "store", "--gpus-per-probe", "0"]
    ran = prune_cli(*words, *where, *([] if "--dry-run" in words else ["--dry-run"]))
    assert ran.code == 0, ran.err
    assert "probes" in ran.out
