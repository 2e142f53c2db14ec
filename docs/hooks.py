"""Let the site show what lies outside docs/: README as its first page, figures, lists, reports."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": None, "CHANGELOG.md": None}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")  # the path of a relative link


def on_files(files: Files, config: object) -> Files:
    """Add the pages of the root, and every file outside docs/ that a page links to."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page or name, content=LINK.sub(_from_root, text)))
        _add(files, config, ROOT, text)
    for notebook in (ROOT / "docs").rglob("*.ipynb"):
        page = notebook.relative_to(ROOT / "docs").with_suffix(".md").as_posix()
        files.append(File.generated(config, page, content=as_page(notebook)))
    for file in list(files.documentation_pages()):
        if file.abs_src_path and not file.generated_by:
            place = Path(file.abs_src_path)
            _add(files, config, place.parent, place.read_text(encoding="utf-8"))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Lead links of docs/ to the root to where those files lie in the site."""
    if "/" in page.file.src_uri:
        return markdown
    return LINK.sub(_to_root, markdown)


def as_page(notebook: Path) -> str:
    """Return a notebook as Markdown, with what its cells printed and drew."""
    pictures = {"ExtractOutputPreprocessor": {"enabled": False}}  # inside the page
    return str(MarkdownExporter(config=pictures).from_filename(str(notebook))[0])


def _from_root(found: re.Match[str]) -> str:
    return PAGES.get(found[0]) or found[0].removeprefix("docs/")


def _to_root(found: re.Match[str]) -> str:
    name = found[0].removeprefix("../")
    return PAGES.get(name) or name


def _add(files: Files, config: object, folder: Path, text: str) -> None:
    for link in LINK.findall(text):
        target = (folder / link).resolve()
        if not target.is_relative_to(ROOT) or target.is_relative_to(ROOT / "docs"):
            continue
        name = target.relative_to(ROOT).as_posix()
        if target.is_file() and name not in PAGES and files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, abs_src_path=str(target)))
