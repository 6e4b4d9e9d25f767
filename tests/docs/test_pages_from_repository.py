"""Links between docs/ and the repository's other pages lead to the same place on the site."""

from __future__ import annotations

import pytest

from tests.docs.loading import REPOSITORY, extension

outside = extension("pages_from_repository")
DOCS = REPOSITORY / "docs"


@pytest.mark.parametrize(
    ("link", "leads_to"),
    [
        ("../collector-config/README.md", "repository/collector.md"),
        ("../collector-config/README.md#the-pipeline", "repository/collector.md#the-pipeline"),
        ("../collector-config/", "repository/collector.md"),
        ("../README.md", "index.md"),
        ("../collector-config/gateway.yaml", "../collector-config/gateway.yaml"),
        ("scaling.md#capacity", "scaling.md#capacity"),
        ("https://example.org/a.md", "https://example.org/a.md"),
        ("#here", "#here"),
    ],
)
def test_a_link_of_a_page_leads_to_the_sites_copy(link: str, leads_to: str) -> None:
    assert outside.mended(f"[text]({link})", DOCS, DOCS) == f"[text]({leads_to})"


def test_a_link_of_a_copy_is_seen_from_its_new_place() -> None:
    text = "[a](gateway.yaml) [b](../docs/scaling.md)"
    mended = outside.mended(text, REPOSITORY / "collector-config", DOCS / "repository")
    assert mended == "[a](../../collector-config/gateway.yaml) [b](../scaling.md)"


def test_what_does_not_exist_yet_makes_no_page(monkeypatch, tmp_path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "CHANGELOG.md").write_text("[docs](docs/index.md)\n")
    monkeypatch.setattr(outside, "REPOSITORY", tmp_path)
    monkeypatch.setattr(outside, "DOCS", tmp_path / "docs")
    page = tmp_path / "docs" / "repository" / "changelog.md"
    assert outside.copied() == [page]
    assert page.read_text() == "[docs](../index.md)\n"
    (tmp_path / "CHANGELOG.md").unlink()
    assert outside.copied() == []
    assert not page.exists()
