"""What a build keeps for the next one: by content, and only what was used."""

import json

from theme.page import kept, listings


def test_code_is_highlighted_once_for_each_content(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "cache")
    made = []

    def shout(text: str) -> list[str]:
        made.append(text)
        return [text.upper()]

    first = kept.between_builds(shout)
    assert first("a") == first("a") == ["A"] and first("b") == ["B"] and made == ["a", "b"]
    first.save()
    second = kept.between_builds(shout)
    assert second("b") == ["B"] and made == ["a", "b"] and second("c") == ["C"] and made == ["a", "b", "c"]
    second.save()
    (file,) = (tmp_path / "cache").iterdir()
    assert sorted(json.loads(file.read_text()).values()) == [["B"], ["C"]]  # what no page shows any more is gone
    file.write_text("{ broken")
    assert kept.between_builds(shout)("b") == ["B"] and made[-1] == "b"


def test_the_site_keeps_its_code(site):
    assert hasattr(listings.python_lines, "save") and (kept.FOLDER / "python_lines.json").is_file()
