"""What the documentation names exists: links, files, modules and their names, commands, settings, make targets."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer.main

from models.settings import Settings
from orchestration.cli import app

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("models", "assets", "checks", "services", "orchestration", "bench", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES_ARE_FILES = ROOT / "docs" / "sources.md"
"""Its examples name files of an imaginary corpus; tests/models/corpus/sources reads them."""

_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"")
_PATH = re.compile(rf"^(?:{'|'.join(FOLDERS)}|docs|\.ci)(?:/[\w.*-]+)*/?$")
_DOTTED = re.compile(rf"^(?:{'|'.join(FOLDERS)})(?:\.\w+)+$")
_COMMAND = re.compile(r"\brerankops ((?:--?[\w-]+|[a-z]+)(?: [a-z]+)*(?: [^`\n|]*)?)")
_MODULE = re.compile(r"python -m ((?:bench|models)[\w.]*)")
_MAKE = re.compile(r"^make ([a-z]+)")
_KEY = re.compile(r"^([a-z_]+)((?:\.[a-z_0-9]+)+)$")
_SET = re.compile(r"--set ([a-z_]+(?:\.[a-z_0-9]+)*)=")
_FILE_NAMES = (".json", ".jsonl", ".parquet", ".py", ".md", ".toml")
_ENVIRONMENT = re.compile(r"\bRERANKOPS_([A-Z_]+?)__([A-Z_0-9]+)\b")


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _prose(page: Path) -> str:
    return _FENCE.sub("", _text(page))


def _code(page: Path) -> Iterator[str]:
    yield from _CODE.findall(_prose(page))


def _commands(page: Path) -> Iterator[str]:
    """Lines of code, in running text or by themselves."""
    text = _text(page)
    yield from _code(page)
    for block in _FENCE.finditer(text):
        yield from block.group().splitlines()[1:-1]
    yield from (line.strip() for line in text.splitlines() if line.startswith("    "))


@cache
def _anchors(page: Path) -> frozenset[str]:
    """Fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


@cache
def _names(module: Path) -> frozenset[str]:
    """Names that a module or a class of it defines, imports left out."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return frozenset(names)


def _exists(dotted: str) -> bool:
    """Whether `package.module[.name[.name]]` is there, without importing it."""
    location, parts = ROOT, dotted.split(".")
    for number, part in enumerate(parts):
        if (location / part).is_dir():
            location /= part
            continue
        module, names = location / f"{part}.py", parts[number + 1 :]
        if not module.is_file():
            module, names = location / "__init__.py", parts[number:]
        return module.is_file() and all(name in _names(module) for name in names)
    return True


def _setting(key: str) -> bool:
    model: Any = Settings
    for part in key.split("."):
        if part not in getattr(model, "model_fields", {}):
            return False
        model = model.model_fields[part].annotation
    return True


def _told(problems: Iterator[tuple[Path, str]]) -> list[str]:
    return [f"{page.relative_to(ROOT)}: {problem}" for page, problem in problems]


def _broken_links(pages: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    for page in pages:
        for match in _LINK.finditer(_CODE.sub("", _prose(page))):
            target = match.group(1) or match.group(2)
            path, _, fragment = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not re.match(r"[a-z]+:", target) and (
                not file.exists() or (fragment and fragment not in _anchors(file))
            ):
                yield page, target


def _missing_code(pages: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    for page in pages:
        for code in _code(page):
            path, _, name = code.partition(":")
            if _PATH.match(path) and page != EXAMPLES_ARE_FILES:
                files = list(ROOT.glob(path.rstrip("/")))
                if not files or (name and not any(name in _names(file) for file in files)):
                    yield page, code
            elif _DOTTED.match(code) and not _exists(code):
                yield page, code
        for command in _commands(page):
            yield from ((page, module) for module in _MODULE.findall(command) if not _exists(module))


def _missing_commands(pages: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    root: Any = typer.main.get_command(app)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in pages:
        for code in _commands(page):
            for call in _COMMAND.findall(code):
                command, words = root, call.split()
                while words and words[0] in getattr(command, "commands", {}):
                    command = command.commands[words.pop(0)]
                options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
                if command is root and words[:1] != ["--help"]:
                    yield page, call
                yield from (
                    (page, f"{call}: {word}")
                    for word in words
                    if word.startswith("--") and word.partition("=")[0] not in options
                )
            yield from ((page, code) for target in _MAKE.findall(code) if target not in targets)


def _missing_settings(pages: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    sections = {name for name, field in Settings.model_fields.items() if hasattr(field.annotation, "model_fields")}
    for page in pages:
        keys = {key for command in _commands(page) for key in _SET.findall(command)} - {"section.key"}
        keys |= {f"{section}.{key}".lower() for section, key in _ENVIRONMENT.findall(_text(page))}
        for code in _code(page):
            match = _KEY.match(re.split("[= ]", code)[0])
            if match and match.group(1) in sections and not code.endswith(_FILE_NAMES):
                keys.add(match.group())
        yield from ((page, key) for key in sorted(keys) if not _setting(key))


def test_links_and_pictures_lead_somewhere():
    assert _told(_broken_links(PAGES)) == []


def test_files_modules_and_names_of_the_code_exist():
    assert _told(_missing_code(PAGES)) == []


def test_commands_options_and_make_targets_exist():
    assert _told(_missing_commands(PAGES)) == []


def test_settings_exist():
    assert _told(_missing_settings(PAGES)) == []


def test_a_page_that_names_what_is_not_there_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Head\n\n[there](#head) and [not](#tail), [not](gone.md)\n\n"
        "`models/errors.py`, `models/gone.py`, `models/errors.py:Gone`, `models.errors.SettingsError`, `models.gone`\n"
        "\n    rerankops run --set gate.gone=1 --gone\n    rerankops gone\n    python -m bench.gone\n\n"
        "`make test` and `make gone`; `gate.min_gain`, `gate.lost`, RERANKOPS_GATE__MISSED\n",
        encoding="utf-8",
    )
    pages = [page]
    assert [target for _, target in _broken_links(pages)] == ["#tail", "gone.md"]
    code = [name for _, name in _missing_code(pages)]
    assert code == ["models/gone.py", "models/errors.py:Gone", "models.gone", "bench.gone"]
    commands = [call for _, call in _missing_commands(pages)]
    assert commands == ["make gone", "run --set gate.gone=1 --gone: --gone", "gone"]
    assert [key for _, key in _missing_settings(pages)] == ["gate.gone", "gate.lost", "gate.missed"]
