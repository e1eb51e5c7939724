"""The page of forgotten pictures: what is on a card, in which order, and that it needs nothing else."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from raypruning.analysis.exemplars import Exemplars, population_exemplars
from raypruning.analysis.modes import Answers
from raypruning.core.populations import Population
from raypruning.reporting.gallery import ranked_images, render_gallery


class Pruned(Population):
    """Without networks: what it reached is given."""

    @property
    def ratio_reached(self) -> float:
        return self.ratio


NAMES = ("boot", "shirt", "coat")
# Eight images, three networks a side. At .5 images 2 and 5 are PIEs, at .9 images 2, 5 and 6.
DENSE = np.array([[0, 0, 1, 1, 2, 2, 2, 0]] * 3)
HALF, MOST = DENSE.copy(), DENSE.copy()
HALF[:2, 2], HALF[:, 5] = 0, 0
MOST[:, 2], MOST[:, 5], MOST[:, 6] = 0, 1, 1
LABEL = np.array([0, 0, 1, 1, 2, 2, 0, 0])


def exemplars(*, names: tuple[str, ...] = NAMES, sweep: str = "tiny") -> Exemplars:
    seeds = (0, 1, 2)
    return Exemplars(
        sweep=sweep,
        storage="store",
        model="lenet5",
        dataset="strokes",
        class_names=names,
        ties="undecided",
        populations=tuple(
            population_exemplars(
                "nominal",
                Pruned("wt", 2, ratio, ()),
                dense=Answers(seeds, DENSE),
                pruned=Answers(seeds, pruned_KN),
                label_N=LABEL,
                ties="undecided",
            )
            for ratio, pruned_KN in ((0.5, HALF), (0.9, MOST))
        ),
    )


def picture(level: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((4, 4), level, np.uint8)).save(data, "PNG")
    return data.getvalue()


PICTURES = {position: picture(20 * position) for position in (2, 5, 6)}


def cards(html: str) -> list[str]:
    return re.findall(r"<article.*?</article>", html, re.DOTALL)


def orders(card: str) -> dict[str, int]:
    return {name: int(place) for name, place in re.findall(r"--(\w+):(\d+);", re.search(r'style="([^"]*)"', card)[1])}


def test_ranked_images_are_the_exemplars_of_any_ratio_by_their_largest_distance():
    # All three networks moved on each, at .9 at the latest.
    assert ranked_images(exemplars()).tolist() == [2, 5, 6]


def test_a_card_holds_the_picture_the_labels_and_all_votes():
    html = render_gallery(exemplars(), PICTURES, num_pies=3)
    first = cards(html)[0]
    source = re.search(r'src="data:image/png;base64,([^"]*)"', first)
    assert source is not None and base64.b64decode(source[1]) == PICTURES[2]
    assert 'alt="Image 2, true class 1 shirt"' in first
    texts = re.findall(r'aria-label="([^"]*)"', first)
    assert texts == ["3 1 shirt", "1 1 shirt, 2 0 boot", "3 0 boot"]
    answers = re.findall(r'<span class="answer" title="[^"]*">(.*?)</span>', first)
    assert answers == ["✓ 1 shirt", "0 boot", "0 boot"]


def test_a_tied_row_says_so_and_is_no_exemplar():
    two = exemplars()
    tied = population_exemplars(
        "nominal",
        Pruned("wt", 2, 0.7, ()),
        dense=Answers((0, 1), DENSE[:2]),
        pruned=Answers((0, 1), HALF[1:]),
        label_N=LABEL,
        ties="undecided",
    )
    html = render_gallery(two._replace(populations=(tied, two.populations[1])), PICTURES, num_pies=3)
    row = re.findall(r"<li.*?</li>", cards(html)[0].partition('class="votes"')[2])[1]
    assert "0 boot or 1 shirt (tied)" in row
    assert 'class="pie"' not in row


def test_cards_are_marked_with_the_ratios_they_are_forgotten_at():
    html = render_gallery(exemplars(), PICTURES, num_pies=3)
    kinds = [re.search(r'class="(card[^"]*)"', card)[1] for card in cards(html)]
    assert kinds == ["card of-0 of-1", "card of-0 of-1", "card of-1"]
    assert re.findall(r"(−\d+\.\d)\N{NO-BREAK SPACE}% <small>(\d+)</small>", html) == [("−50.0", "2"), ("−90.0", "3")]


def test_every_order_is_a_permutation_and_puts_first_what_it_says():
    html = render_gallery(exemplars(), PICTURES, num_pies=3)
    found = [orders(card) for card in cards(html)]
    for name in ("d", "d0", "d1", "c", "r"):
        assert sorted(one[name] for one in found) == [0, 1, 2]

    def ordered(name: str) -> list[int]:
        return [position for _, position in sorted(zip((one[name] for one in found), (2, 5, 6), strict=True))]

    assert ordered("d") == [2, 5, 6]
    assert ordered("d0") == [5, 2, 6]  # at .5 all three networks moved on image 5, two on image 2
    assert ordered("c") == [6, 2, 5]  # classes 0, 1 and 2
    assert ordered("r") == [2, 5, 6]  # image 6 is forgotten at .9 only


def test_a_part_of_the_pictures_is_stated_with_the_total():
    some = {position: PICTURES[position] for position in (2, 5)}
    html = render_gallery(exemplars(), some, num_pies=3)
    assert len(cards(html)) == 2
    assert "3 images that most pruned networks answer otherwise" in html
    assert "The 2 on which votes differ most are shown." in html
    assert "are shown." not in render_gallery(exemplars(), PICTURES, num_pies=3)


def test_page_has_no_script_and_names_no_address_that_a_browser_would_load():
    html = render_gallery(exemplars(), PICTURES, num_pies=3)
    assert "<script" not in html
    assert "@import" not in html
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", html)
    assert not re.findall(r"""url\(""", html)


def test_names_that_would_be_markup_are_shown_as_they_are():
    hostile = '<img src=x onerror="alert(1)">'
    html = render_gallery(exemplars(names=(hostile, "shirt", hostile), sweep=hostile), PICTURES, num_pies=3)
    assert "<img src=x" not in html
    assert "&lt;img src=x" in html


@pytest.mark.parametrize("names", [(), ("0", "1", "2")])
def test_classes_without_names_are_shown_by_number(names: tuple[str, ...]):
    first = cards(render_gallery(exemplars(names=names), PICTURES, num_pies=3))[0]
    assert 'alt="Image 2, true class 1"' in first


def test_same_exemplars_give_the_same_bytes():
    first, second = (render_gallery(exemplars(), PICTURES, num_pies=3) for _ in range(2))
    assert first == second
