"""The words that readers meet: none of the private ones, in documentation, docstrings, messages and comments."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WRITTEN_BY_THE_BUILD = {"api", "auto_examples", "_build"}
PAGES = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")]
    if not WRITTEN_BY_THE_BUILD & set(path.relative_to(ROOT).parts)
)
SCRIPTS = sorted([*(ROOT / "sklgap").rglob("*.py"), *(ROOT / "examples").rglob("*.py")])

# What to write instead.
EVERYWHERE = {
    r"\bkept\b": "saved, left as it is, or stored",
    r"\btells\b|\btold\b": "reports, shows, or says",
    r"(?<!there )\b(?:is|are|was|were) none\b": "there is no ...",
    r"\banew\b": "again",
    r"\bof (?:its|their) own\b": "leave it out",
    r"\bNot \w+ed (?:is|are)\b": "put the subject first",
}
IN_PAGES = {r"\b(?:train(?:ing)?|test|validation|held-out) rows\b": "samples"}
WORDS = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))


def prose_of_page(text):
    """Return a page without code, links and the markers of figures."""
    text = re.sub(r"^(`{3,}).*?^\1`*$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`|\]\([^)]*\)|<!--.*?-->", "", text, flags=re.DOTALL)


def prose_of_script(text):
    """Return docstrings, messages and comments; names in backticks are left out."""
    found = [token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type in WORDS]
    return re.sub(r"``?[^`\n]*``?", "", "\n".join(found))


def faults(text, words):
    """Return a sentence for each private word."""
    return [
        f"{match[0]!r} in {text[max(0, match.start() - 40) : match.end() + 20]!r}; write: {instead}"
        for word, instead in words.items()
        for match in re.finditer(word, text)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_has_no_private_words(page):
    assert faults(prose_of_page(page.read_text(encoding="utf-8")), EVERYWHERE | IN_PAGES) == []


def test_scripts_have_no_private_words():
    found = {
        str(path.relative_to(ROOT)): faults(prose_of_script(path.read_text(encoding="utf-8")), EVERYWHERE)
        for path in SCRIPTS
    }
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize(
    "text", ["The fits are kept.", "It tells which.", "There are none: x is none.", "Not tested are large ones."]
)
def test_private_words_are_found(text):
    assert faults(text, EVERYWHERE)


def test_code_is_not_prose():
    assert prose_of_page("a\n```python\nkept = 1\n```\n`told` [b](kept.md) <!-- kept -->\n").split() == ["a", "[b"]
    assert prose_of_script('kept = "said"  # why\n').split() == ['"said"', "#", "why"]
