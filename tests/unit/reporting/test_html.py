import re
from html.parser import HTMLParser

import pytest

from raypruning.reporting.html import render_compare_html, render_html

from . import sample

VOID = {"meta", "link", "br", "wbr", "img", "input", "hr"}


class _Page(HTMLParser):
    """Every tag closed in order, and where the page would load something from."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.links, self.ids, self.texts = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "a":
            self.links.append(values["href"])
        else:
            self.loads += [values[key] for key in ("src", "href", "xlink:href", "data", "action") if key in values]
        if "id" in values:
            self.ids.append(values["id"])

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


@pytest.fixture(scope="module")
def page(results):
    return render_html(results)


def test_page_is_whole_and_loads_nothing(any_results):
    text = render_html(any_results)
    found = _Page(text)
    assert found.open == []
    assert all(load.startswith(("#", "data:")) for load in found.loads)
    assert "@import" not in text
    assert "url(http" not in text
    assert len(found.ids) == len(set(found.ids))


def test_page_is_the_same_each_time(page):
    assert render_html(sample.realistic()) == page


def test_page_begins_with_the_answer(page):
    assert page.index("wt keeps within 0.5 points") < page.index("<section>")


def test_page_shows_every_probe_and_the_failure(results, page):
    assert page.count('<tr class="failed">') == 1
    assert "TrainingError: loss is NaN at epoch 3 of 10" in page
    table = page[page.index('id="probes"') :]
    assert table[: table.index("</table>")].count("<tr") == 1 + len(results.probes)


def test_page_shows_the_note_as_a_banner():
    results = sample.tiny()
    noted = results.model_copy(update={"spec": results.spec.model_copy(update={"note": "quick recipe"})})
    assert '<div class="banner" role="note">quick recipe</div>' in render_html(noted)


def test_page_without_note_has_no_banner(page):
    assert 'class="banner"' not in page


def test_page_shows_all_deltas():
    results = sample.empty()
    text = render_html(results.model_copy(update={"spec": results.spec.model_copy(update={"deltas": (0.005, 0.02)})}))
    assert "<h2>Potential within 0.5 points</h2>" in text
    assert "<h2>Potential within 2 points</h2>" in text


def test_page_links_the_experiment_and_the_checkpoints(results, page):
    links = _Page(page).links
    assert results.experiment_url in links
    assert f"file://{results.storage}/{results.probes[0].checkpoint.uri}" in links


def test_checkpoints_in_a_bucket_are_named_but_not_linked():
    text = render_html(sample.tiny())
    assert _Page(text).links == []
    assert 'title="s3://bucket/raypruning/trainings/' in text


def test_page_says_how_to_continue(page):
    for command in ("prune-cli sweep lenet5-strokes", "prune-cli report lenet5-strokes --all-probes", "prune-cli ui"):
        assert f"<pre>{command}</pre>" in page


def test_names_cannot_become_markup_or_a_link_that_runs(hostile):
    text = render_html(hostile)
    found = _Page(text)
    assert found.open == []
    assert text.count("<script") == 1  # ours, which sorts
    assert not any(link.startswith("javascript:") for link in found.links)
    assert "prune-cli sweep &#39;x&lt;script" in text  # quoted for the shell


def test_numbers_and_percent_signs_stay_together(page):
    shown = "".join(_Page(re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)).texts)  # a figure's text never wraps
    assert not re.search(r"\d %", shown[: shown.index("Where it comes from")])


def test_comparison_is_whole_loads_nothing_and_shows_both(results):
    text = render_compare_html([results, sample.tiny(), sample.empty()])
    found = _Page(text)
    assert found.open == []
    assert all(load.startswith(("#", "data:")) for load in found.loads)
    shown = "".join(found.texts)
    assert {"lenet5-strokes", "tiny", "unlucky"} <= set(shown.split())
    assert "budgets" in shown


def test_comparison_of_sweeps_that_measured_nothing_renders():
    assert _Page(render_compare_html([sample.nothing(), sample.empty()])).open == []
