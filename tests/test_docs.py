"""What the documentation tells readers to run exists and takes the arguments shown; links lead somewhere."""

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path
    for pattern in ('*.md', 'docs/**/*.md', 'configs/**/*.md', 'benchmarks/**/*.md')
    for path in ROOT.glob(pattern)
)
MAKE_TARGETS = re.findall(r'^([a-z][\w-]*):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
PLACEHOLDER = re.compile(r'[A-Z][A-Z_]+|/path/.*|path/to/.*|<.*>')
# What tools write or users bring: it does not exist in a clone.
OUTPUTS = ('work_dirs/', 'data/', 'outputs/', '.venv/', 'checkpoint')
# Scripts behind the shell scripts: which arguments the latter pass on, by the number of their own.
LAUNCHERS = {
    'dist_train.sh': ('train.py', lambda words: [words[0], *words[2:]]),
    'dist_test.sh': ('test.py', lambda words: [*words[:2], *words[3:]]),
    'slurm_train.sh': ('train.py', lambda words: [words[2], '--work-dir', words[3], *words[4:]]),
    'slurm_test.sh': ('test.py', lambda words: [*words[2:4], *words[4:]]),
}


def commands(text: str) -> list:
    """Commands in the fenced bash blocks of a page, continued lines joined, as lists of words."""
    found = []
    for block in re.findall(r'^```(?:bash|sh|shell|console)\n(.*?)^```', text, re.DOTALL | re.MULTILINE):
        for line in block.replace('\\\n', ' ').splitlines():
            for command in re.split(r'&&|\|\||;|\|', line.removeprefix('$ ').partition(' #')[0]):
                words = shlex.split(command, comments=True)
                while words and re.fullmatch(r'\w+=.*', words[0]):
                    words = words[1:]  # variables set for the command
                if words:
                    found.append(words)
    return found


COMMANDS = [(page, words) for page in PAGES for words in commands(page.read_text())]


def check_path(word: str) -> None:
    assert word.startswith(OUTPUTS) or PLACEHOLDER.fullmatch(word) or (ROOT / word).exists(), f'{word} does not exist'


def check_python_script(script: str, words: list, monkeypatch) -> None:
    """Let the script's own parser read the words; it goes no further than that."""

    class ParsedError(Exception):
        pass

    def parse_args(parser, args=None, namespace=None):
        for action in parser._actions:
            action.type = None if action.type not in (int, float) else action.type  # files need not exist
        parsed = original(parser, words, namespace)
        raise ParsedError(vars(parsed))

    original = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
    monkeypatch.setattr(sys, 'argv', [script, *words])
    monkeypatch.syspath_prepend(str((ROOT / script).parent))  # as for any script
    with pytest.raises(ParsedError):  # an unknown or a missing argument raises SystemExit
        runpy.run_path(str(ROOT / script), run_name='__main__')


def check_command(words: list, monkeypatch) -> None:
    program, *rest = words
    if program == 'make':
        assert all(word in MAKE_TARGETS for word in rest if '=' not in word), f'no such target: {" ".join(words)}'
        return
    if re.fullmatch(r'(.*/)?python[\d.]*', program) and rest and rest[0].endswith('.py'):
        program, *rest = rest
    name = Path(program).name
    if program.endswith(('.py', '.sh')) or program.startswith(('tools/', 'demo/', '.ci/', '.dev_scripts/', './')):
        assert (ROOT / program).is_file(), f'{program} does not exist'
        for word in rest:
            if '/' in word and not word.startswith('-') and '=' not in word and '::' not in word:
                check_path(word)
        if name in LAUNCHERS:
            name, pick = LAUNCHERS[name]
            program, rest = f'tools/{name}', pick(rest)
        if program.endswith('.py'):
            check_python_script(program, rest, monkeypatch)


@pytest.mark.parametrize(
    'page, words', COMMANDS, ids=[f'{page.relative_to(ROOT)}: {" ".join(words)[:60]}' for page, words in COMMANDS]
)
def test_command(page, words, monkeypatch):
    check_command(words, monkeypatch)


@pytest.mark.parametrize(
    'line',
    [
        'make no-such-target',
        'tools/no_such_script.sh',
        'python tools/train.py configs/no_such_config.py',
        'python tools/train.py configs/lite_dino/README.md --no-such-option',
        'python tools/test.py configs/lite_dino/README.md',
        'tools/dist_train.sh configs/lite_dino/README.md 8 --no-such-option',
        'python demo/image_demo.py --weights checkpoint.pth',
    ],
)
def test_wrong_commands_are_noticed(line, monkeypatch):
    (words,) = commands(f'```bash\n{line}\n```\n')
    with pytest.raises((AssertionError, SystemExit)):
        check_command(words, monkeypatch)


def slug(heading: str) -> str:
    """Anchor of a heading as GitHub makes it."""
    text = re.sub(r'\[([^]]*)]\([^)]*\)', r'\1', heading).strip().lower()
    return re.sub(r'[^\w\- ]', '', text).replace(' ', '-')


def anchors(page: Path) -> set:
    text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {slug(heading) for heading in re.findall(r'^#+ +(.*)$', text, re.MULTILINE)}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`\n]*`', '', text)):
        if re.match(r'[a-z]+:', target):
            continue
        path, _, anchor = target.partition('#')
        linked = (page.parent / unquote(path)).resolve() if path else page
        assert linked.exists(), f'{page.name} links to {target}, which does not exist'
        assert linked.is_relative_to(ROOT), f'{page.name} links to {target}, outside of the repository'
        if anchor and linked.suffix == '.md':
            assert anchor in anchors(linked), f'{page.name} links to {target}: no such heading'


def test_pages_name_existing_configs():
    for page in PAGES:
        for name in re.findall(r'lite_detr_mmdet::([\w/.-]+\.py)', page.read_text()):
            assert (ROOT / 'configs' / name).is_file(), f'{page.name} names {name}'
        for name in re.findall(r'(?<![\w/])(?:configs|tools|demo)/[\w/.-]+\.(?:py|sh)\b', page.read_text()):
            assert (ROOT / name).is_file() or (ROOT / 'lite_detr_mmdet' / name).is_file(), f'{page.name} names {name}'
