"""The survey's data file: its order, its ids, and the table and the references that are made from it."""

import re

import pytest
import yaml

from theme.page import survey
from theme.page.pages import ROOT
from theme.page.source import SourceError

DATA = ROOT / "docs/posts/TextToImage.yml"


@pytest.fixture(scope="module")
def rows():
    return survey.read(DATA)


def test_the_survey_is_as_large_as_it_says(rows):
    assert len(rows) >= 60
    assert rows[0]["month"] == "2015-11" and rows[-1]["month"] >= "2025-01"
    assert {row["family"] for row in rows} == set(survey.FAMILIES)


WRONG = {
    "stand in order": lambda rows: rows.insert(0, rows.pop(4)),
    "model AttnGAN is there twice": lambda rows: rows[9].update(model="AttnGAN"),
    "arxiv 1612.00005 is there twice": lambda rows: rows[4].update(arxiv="1612.00005"),
    "is not of the month 2016-05": lambda rows: rows[1].update(arxiv="1606.05396"),
    "an id of arXiv such as": lambda rows: rows[1].update(arxiv="cs/0605396"),
    "a family out of recurrent": lambda rows: rows[1].update(family="gan"),
    "no key arXiv is known": lambda rows: rows[1].update(arXiv="1605.05396"),
    "title is missing": lambda rows: rows[1].pop("title"),
    "either the id of arXiv or another address": lambda rows: rows[1].pop("arxiv"),
    "a month such as 2015-11": lambda rows: rows[1].update(month="2016-5"),
}


@pytest.mark.parametrize("told", WRONG)
def test_a_wrong_entry_is_named_with_its_line(told, rows, tmp_path):
    changed = [dict(row) for row in rows]
    WRONG[told](changed)
    path = tmp_path / "models.yml"
    path.write_text(yaml.safe_dump(changed, allow_unicode=True, sort_keys=False), encoding="utf-8")
    with pytest.raises(SourceError, match=rf"models.yml:\d+: .*{told}"):
        survey.read(path)


def test_the_table_is_whole_without_scripts(rows):
    table = survey.table(rows)
    cells = re.findall(r"<tr data-family=.*?</tr>", table)
    assert len(cells) == len(rows)
    for row, line in zip(rows, cells, strict=True):
        assert f'href="{survey.address(row)}"' in line and row["month"] in line and line.count("<td>") == 6
    assert "Plug &amp; Play" in table


def test_the_references_are_one_a_model_and_have_keys_of_their_own(rows):
    text = survey.bibtex(rows)
    keys = re.findall(r"^@misc\{(\w+),$", text, re.M)
    assert len(keys) == len(set(keys)) == len(rows)
    assert all(key.isascii() for key in keys)
    first = text.split("\n\n")[0].split("\n")
    assert first == [
        "@misc{Mansimov2015alignDRAW,",
        "  title = {{Generating Images from Captions with Attention}},",
        "  author = {Mansimov, Elman and others},",
        "  year = {2015},",
        "  eprint = {1511.02793},",
        "  archivePrefix = {arXiv},",
        "  url = {https://arxiv.org/abs/1511.02793}",
        "}",
    ]
    for entry in text.split("\n\n"):
        assert entry.count("{") == entry.count("}") and not re.search(r"(?<!\\)&", entry)


def test_the_timeline_places_models_by_month_and_family(rows):
    picture = survey.timeline(rows)
    marks = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="4"><title>([^<]*), (\d{4}-\d\d)</title>', picture)
    assert len(marks) == len(rows) == len({(x, y) for x, y, *_ in marks})  # none hides another one
    by_month = sorted(marks, key=lambda mark: mark[3])
    assert [float(mark[0]) for mark in by_month] == sorted(float(mark[0]) for mark in marks)
    lanes = {row["family"]: {float(y) for _, y, name, _ in marks if name == row["model"]} for row in rows}
    assert max(lanes["recurrent"]) < min(lanes["GAN"]) and max(lanes["GAN"]) < min(lanes["unified"])
    autoregressive = sum(row["family"] == "autoregressive" for row in rows)
    assert f"A mark for each of {len(rows)} models" in picture and f"; {autoregressive} autoregressive;" in picture
