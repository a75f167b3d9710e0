"""The report in a real browser: nothing complains, overlaps or sticks out, and its instruments answer."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from morphem.analysis import Analysis, analyze, write_report
from morphem.data.dataset import Dataset, Source
from morphem.methods import backproject, classify, fit, variability
from morphem.run import Run

WIDTHS = (1280, 400)
VERDICTS = ("holds", "doubtful", "fails", "cannot tell")
SLIDER = "document.querySelector('#surface input')"
QUICK = {"sweeps": 2, "starts": 1}


def write_validation(folder: Path) -> None:
    """As `morphem validate` writes it: one check for each verdict, the last without a number and a plot."""
    checks = [
        {"name": f"check{i}", "title": f"Check {i} of the <maps>", "verdict": verdict, "value": 0.9, "low": 0.5,
         "high": 0.95, "unit": "Å", "sentence": f"It {verdict}, as the plot shows."}
        for i, verdict in enumerate(VERDICTS)
    ]  # fmt: skip
    checks[-1] |= {"value": None, "low": None, "high": None}
    (folder / "validation").mkdir()
    for check in checks[:-1]:
        figure = Figure(figsize=(3, 2))
        figure.subplots().plot([0, 1])
        figure.savefig(folder / "validation" / f"{check['name']}.png")
    verdict = {"verdict": "doubtful", "sentence": "One check of four fails.", "checks": checks}
    (folder / "validation" / "validation.json").write_text(json.dumps(verdict))


@pytest.fixture(scope="module")
def report(tiny, tmp_path_factory) -> Path:
    """Of a run with three dimensions, analysed, then validated."""
    dataset, folder = Dataset.open(Source(tiny / "particles.star")), tmp_path_factory.mktemp("report") / "run"
    ensemble = fit("variability", dataset, variability.Config(latent_dim=3, **QUICK), Run(folder))
    analyze(ensemble, Analysis(clusters=5, axes=2, frames=4, decoder="model"))
    write_validation(folder)
    return write_report(ensemble)


@pytest.fixture(scope="module")
def others(tiny, tmp_path_factory) -> list[Path]:
    """Of runs without latents, with one dimension, and with classes."""
    dataset, parent = Dataset.open(Source(tiny / "particles.star")), tmp_path_factory.mktemp("reports")
    runs = {
        "backproject": backproject.Config(),
        "variability": variability.Config(latent_dim=1, **QUICK),
        "classify": classify.Config(classes=2, **QUICK),
    }
    settings = Analysis(clusters=3, frames=2, decoder="model")
    return [analyze(fit(name, dataset, config, Run(parent / name)), settings) for name, config in runs.items()]


def check_layout(browser, page: Path) -> None:
    for width in WIDTHS:
        browser.open(page, width)
        assert browser.complaints == []
        assert browser.js("document.documentElement.scrollWidth") <= width
        assert browser.js("overlapping()") == [] and browser.js("cutOff()") == []


def test_nothing_complains_overlaps_or_sticks_out(browser, report):
    check_layout(browser, report)


def test_nor_where_a_run_has_no_latents_one_dimension_or_classes(browser, others):
    for page in others:
        check_layout(browser, page)


def test_the_probe_finds_what_overlaps(browser, report):
    browser.open(report, 1280)
    browser.js("document.querySelector('#states figure').style.marginTop = '-60px'")
    assert browser.js("overlapping()") != []


def test_the_surface_is_drawn_and_turns_by_mouse_and_keys(browser, report):
    browser.open(report, 1280)
    x, y, *_ = browser.js("boxOf('#surface')")
    seen = [browser.js("pixels('#surface')")]
    assert 0.05 < seen[0][0] < 0.8
    browser.drag((x + 200, y + 200), (x + 260, y + 180))
    seen.append(browser.js("pixels('#surface')"))
    for key in ("ArrowLeft", "+"):
        browser.key(key)
        seen.append(browser.js("pixels('#surface')"))
    assert len({checksum for _, checksum in seen}) == 4 and seen[3][0] > 1.2 * seen[2][0]
    browser.key("0")
    assert browser.js("pixels('#surface')") == seen[0]
    browser.js("document.querySelector('#surface [data-do=spin]').click()")
    assert browser.js("pixels('#surface')") != seen[0]
    assert browser.complaints == []


def test_the_surface_is_that_of_the_map(browser, report):
    """What it covers along z shrinks with a rising level as what the voxels above the level cover."""
    browser.open(report, 1280)
    covered = browser.js("pixels('#surface')")[0]
    cube_v = np.array(browser.js("unpacked(data.blocks[0].bytes, Uint8Array).then((cube) => [...cube])"))
    side, level, step = browser.js("(({side, level, step}) => [side, level, step])(data.blocks[0])")
    high_yx = cube_v.reshape(side, side, side).max(0) * step
    browser.js(f"((input) => {{ input.value = {1.5 * level}; input.oninput(); }})({SLIDER})")
    expected = (high_yx > 1.5 * level).sum() / (high_yx > level).sum()
    assert expected < 0.9 and browser.js("pixels('#surface')")[0] / covered == pytest.approx(expected, rel=0.05)


def test_the_landscape_is_read_moved_and_chosen_from(browser, report):
    browser.open(report, 1280)
    total = browser.js("unpacked(data.planes[0].images, Uint32Array).then((n) => n.reduce((a, b) => a + b))")
    assert total == pytest.approx(150, abs=4)
    seen = [browser.js("pixels('#planes')")]
    x, y = place_of(browser, 4)
    browser.mouse("mouseMoved", x, y)
    reading = browser.js("document.querySelector('#planes output').textContent")
    assert " image" in reading and "cluster 4" in reading
    browser.drag((x, y), (x, y))
    assert browser.js("document.querySelector('#chosen h3').textContent") == "State 4"
    seen.append(browser.js("pixels('#planes')"))
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-200)
    seen.append(browser.js("pixels('#planes')"))
    for button in ("[data-colour=labels]", "[data-plane='1']"):
        browser.js(f'document.querySelector("#planes {button}").click()')
        seen.append(browser.js("pixels('#planes')"))
    assert len({checksum for _, checksum in seen}) == 5 and all(0.02 < share < 0.9 for share, _ in seen)
    assert browser.complaints == []


def place_of(browser, state: int) -> tuple[float, float]:
    """Where a state's number stands in the window, by the margins of the axes."""
    left, top, width, height = browser.js("boxOf('#planes')")
    plane = browser.js("(({ frame, centres }) => ({ frame, centres }))(data.planes[0])")
    (x0, y0, x1, y1), (x, y) = plane["frame"], plane["centres"][state - 1]
    return left + 46 + (width - 54) * (x - x0) / (x1 - x0), top + 8 + (height - 44) * (y1 - y) / (y1 - y0)


def test_a_chosen_state_is_turned(browser, report):
    browser.open(report, 1280)
    before = browser.js("pixels('#surface')")
    browser.js("document.querySelector('#chosen [data-turn]').click()")
    assert browser.js("pixels('#surface')") != before
    assert browser.js("document.querySelector('#surface select').selectedOptions[0].text") == "State 1"


def test_a_player_plays_and_pauses_by_button_and_key(browser, report):
    browser.open(report, 400)
    browser.js("second = document.querySelectorAll('.player')[1]; null")
    shown = "[...second.querySelectorAll('img')].findIndex((frame) => !frame.hidden)"
    assert browser.js(shown) == 0
    browser.js("second.querySelector('button').click()")
    browser.until(f"{shown} > 1")
    browser.js("second.querySelector('input').focus()")
    browser.key(" ")
    stopped = browser.js(shown)
    browser.js("new Promise((done) => setTimeout(done, 400))")
    assert browser.js(shown) == stopped and browser.js("second.querySelector('button').textContent") == "Play"


def test_verdicts_differ_in_word_symbol_and_grey(browser, report):
    browser.open(report, 1280)
    badges = browser.js("""[...document.querySelectorAll("#validation .badge")].map((badge) => [
      badge.textContent.trim().split(/\\s+/), getComputedStyle(badge).backgroundColor.match(/\\d+/g).map(Number)])""")
    assert [" ".join(words[1:]) for words, _ in badges] == list(VERDICTS)
    assert len({words[0] for words, _ in badges}) == 4
    grey = sorted(np.dot(colour[:3], [0.299, 0.587, 0.114]) for _, colour in badges)
    assert np.diff(grey).min() > 20
    assert browser.js("document.querySelector('.verdict').textContent").split()[:2] == ["!", "doubtful"]
    assert browser.js("document.querySelectorAll('#validation img').length") == 3


def test_a_page_without_validation_says_how_to_get_it(others):
    assert "morphem validate backproject" in others[0].read_text()


def test_the_page_asks_for_nothing_and_stays_small(browser, report):
    browser.open(report, 1280)
    asked = browser.js("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [address for address in asked if not address.startswith(("data:", "blob:"))] == []
    assert report.stat().st_size < 4e6


def test_everything_seen_has_a_name_and_headings_have_an_order(browser, report):
    browser.open(report, 1280)
    assert browser.js("nameless()") == []
    levels = browser.js("[...document.querySelectorAll('h1, h2, h3')].map((heading) => Number(heading.tagName[1]))")
    assert levels[0] == 1 and max(np.diff(levels)) <= 1
