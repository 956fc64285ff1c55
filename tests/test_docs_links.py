"""Links of all pages lead somewhere, and the site has all pages."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for folder in (".", "docs", "configs", "demos", "demos/*", "benchmarks")
    for path in ROOT.glob(f"{folder}/*.md")
)
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """What "#…" may name: the headings, as GitHub and mkdocs write them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def in_site(page: Path) -> bool:
    """All but what is for people who change this repository."""
    return page.name not in {"CONTRIBUTING.md", "CODE_OF_CONDUCT.md"}


def links(page: Path) -> list[str]:
    """Relative links of a page, those in code left out."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    return [link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path):
    for link in links(page):
        target, _, anchor = link.partition("#")
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), f"{page.relative_to(ROOT)}: {link} leads nowhere"
        assert not anchor or anchor in anchors(found.read_text()), f"{page.relative_to(ROOT)}: no heading for {link}"


def test_there_are_links():
    assert len(PAGES) > 20 and sum(len(links(page)) for page in PAGES) > 80


def test_the_site_has_all_pages():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = {page for entry in nav for part in entry.values() for page in pages_of(part)}
    there = {str(page.relative_to(ROOT)) for page in PAGES if in_site(page)}
    assert listed - there == set(), "mkdocs.yml lists pages that do not exist"
    assert there - listed == set(), "pages that mkdocs.yml does not list"


@pytest.mark.parametrize("page", [*filter(in_site, PAGES)], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_stay_in_the_site(page: Path):
    """`make site` copies some files and folders, and refuses links to others."""
    (copied,) = re.findall(r"^PAGES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for link in links(page):
        target = (page.parent / link.partition("#")[0]).resolve() if not link.startswith("#") else page
        assert target.relative_to(ROOT).parts[0] in copied.split(), (
            f"{page.relative_to(ROOT)}: {link} is not in the site"
        )


def pages_of(part: str | list[dict[str, str]]) -> list[str]:
    """The pages of a section, or the page."""
    return [part] if isinstance(part, str) else [page for entry in part for page in entry.values()]
