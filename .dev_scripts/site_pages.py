"""Hooks of MkDocs: links from the pages in docs/ to other files of the repository lead to pages of the site.

On GitHub `../configs/x.py` is a file. The site has no such file, so each one that a page links to becomes a page below
source/: Markdown as it is, everything else as a listing. Markdown is followed further.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Callable, Iterator
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
FOLDER = 'source'
LINK = re.compile(r'(?<=]\()([^)\s]+)(?=\))')
FENCE = re.compile(r'^(?:```|~~~).*?^(?:```|~~~)\s*$', re.DOTALL | re.MULTILINE)
LANGUAGES = {
    '.py': 'python',
    '.sh': 'bash',
    '.yml': 'yaml',
    '.json': 'json',
    '.cpp': 'cpp',
    '.h': 'cpp',
    '.cu': 'cuda',
}
LONGEST = 60_000  # characters of a listing; records of benchmarks are longer
AS_THEY_ARE = ('.svg', '.png', '.jpg', '.pth')  # pictures are shown, weights downloaded


def outside_fences(text: str, change: Callable[[re.Match], str]) -> str:
    """The text with every link target outside of fenced blocks replaced."""
    parts, position = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(change, text[position : fence.start()]), fence.group()]
        position = fence.end()
    return ''.join([*parts, LINK.sub(change, text[position:])])


def resolve(target: str, path: Path) -> Path | None:
    """File or folder of the repository that a link in ``path`` leads to; None for addresses and anchors."""
    plain = unquote(target.partition('#')[0])
    if not plain or re.match(r'[a-z]+:', target):
        return None
    found = (path.parent / plain).resolve()
    if (found / 'README.md').is_file() and found != ROOT:
        found = found / 'README.md'
    return found if found.exists() and found.is_relative_to(ROOT) else None


def is_of_docs(path: Path) -> bool:
    return path.is_relative_to(ROOT / 'docs')


def address(path: Path) -> str:
    """Where a file of the repository lies on the site, as a source address of MkDocs."""
    if is_of_docs(path):
        return path.relative_to(ROOT / 'docs').as_posix()
    name = path.relative_to(ROOT).as_posix()
    if path.suffix in AS_THEY_ARE:
        return f'{FOLDER}/{name}'
    return f'{FOLDER}/{name}' if path.suffix == '.md' else f'{FOLDER}/{name}.md'


def origin(uri: str) -> Path:
    """The file of the repository that a page was made from."""
    if not uri.startswith(f'{FOLDER}/'):
        return ROOT / 'docs' / uri
    name = uri.removeprefix(f'{FOLDER}/')
    return ROOT / name if (ROOT / name).is_file() else ROOT / name.removesuffix('.md')


def linked(path: Path) -> Iterator[Path]:
    """Files and folders outside of docs/ that a Markdown file links to."""
    found = []
    outside_fences(path.read_text(), lambda match: found.append(resolve(match[0], path)) or '')
    yield from (item for item in found if item is not None and not is_of_docs(item))


def listing(path: Path) -> str:
    """Page of a file that is not Markdown, or of a folder."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        lines = [
            f'- `{item.name}{"/" if item.is_dir() else ""}`' for item in sorted(path.iterdir()) if item.name[0] != '_'
        ]
        return '\n'.join([f'# {name}/', '', 'Files of this folder of the repository:', '', *lines])
    text = path.read_text()
    if len(text) > LONGEST:
        text = f'{text[:LONGEST]}\n... ({len(text)} characters in the repository)'
    return f'# {name}\n\n````{LANGUAGES.get(path.suffix, "text")}\n{text}\n````\n'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file that a page links to."""
    waiting = [origin(file.src_uri) for file in files.documentation_pages()]
    waiting += [ROOT / 'CHANGELOG.md', ROOT / 'CONTRIBUTING.md']
    seen = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if path.suffix == '.md':
            waiting += linked(path)
        if is_of_docs(path):
            continue
        if path.suffix in AS_THEY_ARE:
            files.append(File.generated(config, address(path), abs_src_path=str(path)))
        else:
            content = path.read_text() if path.suffix == '.md' else listing(path)
            file = File.generated(config, address(path), content=content)
            file.inclusion = file.inclusion.__class__.NOT_IN_NAV
            files.append(file)
    add_new_pages(config, files)
    return files


def add_new_pages(config: MkDocsConfig, files: Files) -> None:
    """Pages of docs/ that mkdocs.yml does not name stand last in the menu, so that none is lost."""
    named = set(re.findall(r"'([^']+\.md)'", str(config.nav)))
    new = [file.src_uri for file in files.documentation_pages() if file.src_uri not in named]
    new = sorted(uri for uri in new if not uri.startswith(f'{FOLDER}/'))
    if new:
        config.nav.append({'More': new})


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Drop the roles of docstrings (`:func:`), which are Sphinx's."""
    return re.sub(r':(?:func|class|meth|mod):(?=<code)', '', html)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to pages of the site."""
    path = origin(page.file.src_uri)
    if page.file.src_uri == 'model_zoo.md':
        page.meta['hide'] = ['toc']  # the table is wide
    if path.suffix != '.md':
        return markdown

    def change(match: re.Match) -> str:
        found = resolve(match[0], path)
        if found is None:
            return match[0]
        anchor = match[0].partition('#')[1:]
        return posixpath.relpath(address(found), os.path.dirname(page.file.src_uri) or '.') + ''.join(anchor)

    return outside_fences(markdown, change)
