"""The pages in a real browser: things stand where they belong, sound plays and seeks, keys work, nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from selenium.webdriver import Keys

from pmam_plugin.report import DetectedRecording, detections, write_detection_report
from tests.report import samples
from tests.support_browser import Browser

RIGHT, END, HOME = Keys.RIGHT, Keys.END, Keys.HOME


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = (samples.detection_page, samples.training_page, samples.prototype_page)
    return {page.stem: page for page in (make(folder) for make in made)}


def quiet(browser: Browser) -> None:
    """Nothing went wrong, and nothing but the page itself was asked for."""
    assert browser.console() == []
    asked = [address for address in browser.requests() if not address.startswith(("data:", "blob:"))]
    assert [address for address in asked if not address.endswith(".html")] == []
    assert len(asked) <= 1


def position(browser: Browser) -> float:
    return browser.run("return document.querySelector('audio').currentTime")


def test_events_stand_at_their_times(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["detect"])
    browser.wait("document.querySelectorAll('rect.detected').length === 3")
    lane = browser.box(".lane[data-label=Cat] svg")
    seen = browser.run(
        """const bands = document.querySelectorAll('.lane[data-label=Cat] rect.band');
        return [...bands].map(band => band.getBoundingClientRect().toJSON())"""
    )
    for box, (onset, offset) in zip(seen, [(1.0, 2.0), (3.5, 3.75)], strict=True):
        assert box["x"] == pytest.approx(lane["x"] + onset / 4 * lane["width"], abs=1)
        assert box["right"] == pytest.approx(lane["x"] + offset / 4 * lane["width"], abs=1)
    track, picture = browser.box(".track"), browser.box("canvas.spectrogram")
    for box in (track, picture):
        assert (box["x"], box["width"]) == pytest.approx((lane["x"], lane["width"]), abs=0.5)
    ticks = browser.run(
        """const ticks = [...document.querySelectorAll('.axis span')];
        return ticks.map(tick => [tick.textContent, tick.offsetLeft / tick.parentElement.offsetWidth])"""
    )
    assert dict(ticks)["0:02.0"] == pytest.approx(0.5, abs=0.01)
    quiet(browser)


def test_low_scores_can_be_read_against_their_threshold(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["detect"])
    browser.wait("document.querySelectorAll('line.threshold').length === 2")
    # Scores are 0.1 and 0.8, so the lanes of Cat and Dog are as high as a score of 1.
    for label, threshold in (("Cat", 0.5), ("Dog", 0.04)):
        line = browser.box(f".lane[data-label={label}] line.threshold")
        area = browser.box(f".lane[data-label={label}] path.area")
        height = area["height"] / 0.8  # from the lane's floor to a score of 0.8
        assert area["bottom"] - line["y"] == pytest.approx(threshold * height, abs=2)
    browser.run("document.querySelectorAll('.file')[1].click()")
    browser.wait("document.querySelectorAll('.lane').length === 3")
    # Nothing above 0.1 in the second recording: its lanes are that high and say so.
    assert set(browser.run("return [...document.querySelectorAll('.scale')].map(text => text.textContent)")) == {"0.1"}
    quiet(browser)


def test_the_spectrogram_shows_the_click_where_it_is_heard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["detect"])
    browser.wait("players[0].grey")
    column = browser.run(
        """const {width, height, levels} = players[0].grey;
        const sums = new Array(width).fill(0);
        for (let i = 0; i < width * height; i++) sums[i % width] += levels[i];
        return sums.indexOf(Math.max(...sums)) * 0.01"""
    )
    assert column == pytest.approx(1.0, abs=0.02)
    heard = browser.run(
        """const context = new OfflineAudioContext(1, 16000, 16000);
        const sound = await context.decodeAudioData(bytesOf(report.recordings[0].audio.base64).buffer);
        const wave = sound.getChannelData(0);
        let best = 0;
        for (let i = 0; i < wave.length; i++) if (Math.abs(wave[i]) > Math.abs(wave[best])) best = i;
        return [best / sound.sampleRate, sound.duration]"""
    )
    assert heard == pytest.approx([1.001, 4.0], abs=0.01)


def test_it_plays_and_the_playhead_follows(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["detect"])
    assert browser.run("return document.querySelector('.play').disabled") is False
    browser.run("document.querySelector('.play').click()")
    browser.wait("document.querySelector('audio').currentTime > 0.3")
    browser.run("document.querySelector('.play').click()")
    browser.wait("document.querySelector('audio').paused")
    track, head = browser.box(".track"), browser.box(".playhead")
    middle = head["x"] + head["width"] / 2
    assert middle == pytest.approx(track["x"] + position(browser) / 4 * track["width"], abs=track["width"] * 0.03)
    quiet(browser)


def test_a_long_recording_plays_from_its_own_file(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detections, "EMBEDDED_SECONDS", 0.0)
    soundfile.write(tmp_path / "my #1.wav", samples.wave(), samples.RATE)
    (tmp_path / "reports").mkdir()
    page = tmp_path / "reports" / "page.html"
    write_detection_report(page, [DetectedRecording("long", tmp_path / "my #1.wav", samples.EVENTS)])
    browser.open(page)
    browser.run("document.querySelector('.play').click()")
    browser.wait("document.querySelector('audio').currentTime > 0.1")
    assert browser.console() == []
    assert browser.run("return document.querySelector('.player .notice').textContent").startswith("This long recording")


def test_a_click_seeks(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["detect"])
    browser.wait("document.querySelector('audio').readyState > 0")
    track = browser.box(".track")
    browser.click(track["x"] + track["width"] * 0.4, track["y"] + 40)
    browser.wait("Math.abs(document.querySelector('audio').currentTime - 1.6) < 0.02")
    lit = browser.run("return [...document.querySelectorAll('.lane-label.now')].map(l => l.textContent)")
    assert lit == ["Cat", "Dog"]
    assert browser.run("return document.querySelector('.track').getAttribute('aria-valuenow')") == "1.60"
    quiet(browser)


def test_keys_play_seek_and_jump(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["detect"])
    browser.wait("document.querySelector('audio').readyState > 0")
    at = "Math.abs(document.querySelector('audio').currentTime - {}) < 0.02"
    browser.press(RIGHT)
    browser.wait(at.format(1.0))
    browser.press("n")
    browser.wait(at.format(3.5))
    browser.press("p")
    browser.wait(at.format(1.0))
    browser.press(END)
    browser.wait(at.format(4.0))
    browser.press(HOME)
    browser.wait(at.format(0.0))
    browser.press(" ")
    browser.wait("!document.querySelector('audio').paused")
    browser.press(" ")
    browser.wait("document.querySelector('audio').paused")
    quiet(browser)


def test_zooming_moves_events_with_the_axis(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["detect"])
    browser.wait("players[0].grey")
    browser.run("players[0].show(1, 2)")
    lane = browser.box(".lane[data-label=Cat] svg")
    event = browser.box(".lane[data-label=Cat] rect.band")
    assert (event["x"], event["width"]) == pytest.approx((lane["x"], lane["width"]), abs=1)
    track = browser.box(".track")
    browser.click(track["x"] + track["width"] * 0.25, track["y"] + 40)
    browser.wait("Math.abs(document.querySelector('audio').currentTime - 1.25) < 0.02")
    window = browser.box(".minimap .window")
    whole = browser.box(".minimap")
    assert window["x"] - whole["x"] == pytest.approx(whole["width"] / 4, abs=2)
    browser.press("0")
    assert browser.run("return players[0].view") == [0, 4]
    quiet(browser)


def test_silent_classes_fold_away_and_come_back(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["detect"])
    browser.wait("document.querySelectorAll('.lane').length === 2")
    browser.run("document.querySelector('.all-lanes').click()")
    browser.wait("document.querySelectorAll('.lane').length === 3")


def test_another_recording_takes_the_player(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["detect"])
    browser.run("document.querySelectorAll('.file')[1].click()")
    browser.wait("document.querySelector('.player .name').textContent.endsWith('hall.wav')")
    assert browser.run("return document.querySelector('#event-table').textContent").startswith("Nothing was detected")
    assert browser.run("return document.querySelectorAll('audio').length") == 1
    quiet(browser)


@pytest.mark.parametrize("name", ["detect", "training", "prototypes"])
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_everything_without_scrolling_sideways(
    browser: Browser, pages: dict[str, Path], name: str, dark: bool
) -> None:
    browser.emulate(390, 844, dark=dark, mobile=True)
    browser.open(pages[name])
    browser.wait("document.querySelectorAll('canvas').length > 0")
    # A page that is too wide widens the window of a phone.
    assert browser.run("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    # The emulated colour scheme reaches a page that is already there only after a while.
    same = "===" if dark else "!=="
    browser.wait(f"getComputedStyle(document.body).backgroundColor {same} 'rgb(16, 19, 26)'")
    quiet(browser)


def test_the_theme_can_be_chosen(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["training"])
    browser.wait("players[0].image")
    colours = """const canvas = document.querySelector('canvas.spectrogram');
        return [...canvas.getContext('2d').getImageData(2, 2, 1, 1).data]"""
    before = browser.run(colours)
    browser.run("document.querySelector('#theme').click()")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 26)"
    assert browser.run(colours) != before
    browser.run("document.querySelector('#theme').click()")
    assert browser.run(colours) == before


def test_training_charts_are_drawn_and_answer(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["training"])
    browser.wait("document.querySelectorAll('[data-curves] svg.chart').length === 2")
    titles = browser.run("return [...document.querySelectorAll('[data-curves] h3')].map(h => h.textContent)")
    assert titles == ["loss", "consistency"]  # training and validation loss share a chart
    assert (
        browser.run("return document.querySelectorAll('[data-curves] svg')[0].querySelectorAll('.series').length") == 2
    )
    assert browser.run("return document.querySelector('.stage-facts.single').textContent") == "student psds1 0.25"
    assert browser.run("return document.querySelectorAll('[data-roc=PSDS1] .series').length") == 2  # all, and Cat
    assert browser.run("return document.querySelectorAll('[data-weights] .column').length") == 3
    browser.run("const chart = document.querySelector('[data-curves] svg'); chart.scrollIntoView(); chart.focus()")
    browser.press(RIGHT)
    browser.wait("!document.querySelector('.tooltip').hidden")
    assert "update 10" in browser.run("return document.querySelector('.tooltip').textContent")
    quiet(browser)


def test_class_bars_are_as_long_as_their_figures(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["training"])
    browser.wait("document.querySelectorAll('.bar-row').length === 3")
    width = """const line = document.querySelectorAll('.bar-row[data-label=Cat] .bar-line')[{}];
        return line.querySelector('.bar-fill').offsetWidth / line.querySelector('.bar-track').offsetWidth"""
    assert browser.run(width.format(0)) == pytest.approx(0.3, abs=0.01)
    assert browser.run(width.format(1)) == pytest.approx(0.4, abs=0.01)
    browser.run(
        """const choice = document.querySelector('#class-metric');
        choice.value = 'event_f1';
        choice.dispatchEvent(new Event('change'))"""
    )
    assert browser.run(width.format(1)) == pytest.approx(0.5, abs=0.01)
    assert browser.run("return document.querySelector('.bar-row[data-label=Dog] .bar-value').textContent") == "–"


def test_only_one_clip_sounds_at_a_time(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["training"])
    browser.wait("document.querySelectorAll('.play').length === 6")
    browser.run("document.querySelectorAll('.play')[0].click()")
    browser.wait("!document.querySelectorAll('audio')[0].paused")
    browser.run("document.querySelectorAll('.play')[3].click()")
    browser.wait("!document.querySelectorAll('audio')[3].paused && document.querySelectorAll('audio')[0].paused")
    lanes = browser.run("return document.querySelectorAll('#clip-0 rect.truth').length")
    assert lanes == 3
    quiet(browser)


def test_prototypes_are_chosen_on_the_map_and_heard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["prototypes"])
    browser.wait("document.querySelectorAll('.map .disc').length === 6")
    assert browser.run("return document.querySelectorAll('.map .ellipse').length") == 6
    assert browser.run("return document.querySelectorAll('.wall-card').length") == 6
    assert browser.run("return document.querySelectorAll('.heat .cell').length") == 24
    place = browser.box(".disc[data-prototype='4']")
    browser.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    browser.wait("document.querySelector('#chosen .badge').textContent === '4'")
    browser.wait("document.querySelector('#chosen .excerpt').classList.contains('on')")
    # The excerpts of all prototypes are one sound: 1 has none, so prototype 4 begins with the fifteenth.
    begin = 15 * 1.1
    browser.wait(f"document.querySelector('audio').currentTime > {begin + 0.1}")
    assert position(browser) < begin + 1.1
    browser.wait("document.querySelector('audio').paused")
    assert position(browser) == pytest.approx(begin + 1.0, abs=0.15)
    quiet(browser)


def test_iterations_and_projections_can_be_compared(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["prototypes"])
    browser.wait("document.querySelectorAll('.map .disc').length === 6")
    assert "iteration 1: " in browser.run("return document.querySelector('#agreement').textContent")
    browser.run("document.querySelectorAll('#map-choice button')[1].click()")
    assert browser.run("return document.querySelectorAll('.map .ellipse').length") == 0
    browser.run("document.querySelector('[data-iteration=\"0\"]').click()")
    browser.wait("state.iteration === 0")
    assert "iteration 1: " not in browser.run("return document.querySelector('#agreement').textContent")
    browser.run(
        "const s = document.querySelector('#heat-mode'); s.value = 'lift'; s.dispatchEvent(new Event('change'))"
    )
    assert browser.run("return document.querySelectorAll('.heat .cell').length") == 24
    quiet(browser)


def test_discs_do_not_hide_each_other(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["prototypes"])
    browser.wait("document.querySelectorAll('.map .disc').length === 6")
    discs = browser.run(
        """const discs = [...document.querySelectorAll('.disc > circle')];
        return discs.map(disc => ['cx', 'cy', 'r'].map(name => Number(disc.getAttribute(name))))"""
    )
    for i, (x, y, r) in enumerate(discs):
        for u, v, s in discs[:i]:
            assert ((x - u) ** 2 + (y - v) ** 2) ** 0.5 > r + s


def test_the_map_can_be_saved_as_a_picture_of_its_own(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["prototypes"])
    browser.wait("document.querySelectorAll('.map .disc').length === 6")
    saved = browser.run(
        """let saved = null;
        HTMLAnchorElement.prototype.click = function () { saved = this; };
        const blobs = [];
        const create = URL.createObjectURL;
        URL.createObjectURL = (blob) => { blobs.push(blob); return create(blob); };
        document.querySelector('#save-map').click();
        const text = await blobs[0].text();
        const parsed = new DOMParser().parseFromString(text, 'image/svg+xml');
        const discs = parsed.querySelectorAll('.disc').length;
        return [saved.download, discs, text.includes('var(--'), parsed.querySelector('parsererror') === null,
            text.includes('6 prototypes, iteration 2'), parsed.querySelector('.chosen') === null]"""
    )
    assert saved == ["prototypes-iteration-2.svg", 6, False, True, True, True]
    assert browser.run("return document.querySelectorAll('.map .disc.chosen').length") == 1  # as before


def test_the_map_can_be_saved_as_pixels_for_a_slide(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["prototypes"])
    browser.wait("document.querySelectorAll('.disc image').length === 5")
    saved = browser.run(
        """const blobs = [];
        const create = URL.createObjectURL;
        URL.createObjectURL = (blob) => { blobs.push(blob); return create(blob); };
        let click;
        const clicked = new Promise((done) => { click = done; });
        HTMLAnchorElement.prototype.click = function () { click(this.download); };
        document.querySelector('#save-pixels').click();
        const name = await clicked;
        const image = await createImageBitmap(blobs[0]);
        const map = document.querySelector('#map svg');
        return [name, image.width / map.clientWidth, image.height / (map.clientHeight + 28)]"""
    )
    assert saved == ["prototypes-iteration-2.png", 3, 3]
    quiet(browser)


def test_a_prototype_is_shown_by_its_sound_or_as_a_disc(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["prototypes"])
    browser.wait("document.querySelectorAll('.disc image').length === 5")  # prototype 1 has no excerpt
    inside = browser.run(
        """return [...document.querySelectorAll('.disc')].every((disc) => {
            const [circle, image] = [disc.querySelector('circle'), disc.querySelector('image')];
            if (!image) return true;
            const [outer, inner] = [circle.getBoundingClientRect(), image.getBoundingClientRect()];
            return inner.left >= outer.left && inner.right <= outer.right && inner.top >= outer.top;
        })"""
    )
    assert inside
    browser.run("document.querySelector('[data-look=discs]').click()")
    assert browser.run("return document.querySelectorAll('.disc image').length") == 0
    assert browser.run("return document.querySelectorAll('.disc').length") == 6
    quiet(browser)


def test_a_prototype_says_how_pure_it_is(browser: Browser, pages: dict[str, Path]) -> None:
    joint = samples.prototype_iteration("iteration 2", seed=1).joint
    shares = joint[4] / joint[4].sum()
    overall = joint.sum(axis=0) / joint.sum()
    browser.open(pages["prototypes"])
    browser.run("choose(4, false)")
    facts = browser.run("return document.querySelector('#chosen .stage-facts').textContent")
    assert f"purity {100 * shares.max():.0f} %" in facts
    assert f"tells {(shares * np.log2(shares / overall)).sum():.2f} bits" in facts


def test_keys_walk_over_the_map(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["prototypes"])
    browser.wait("document.querySelectorAll('.map .disc').length === 6")
    first = browser.run(
        "document.querySelector(`.disc[data-prototype='${order[0]}']`).focus(); return order.slice(0, 2)"
    )
    browser.press(RIGHT)
    assert browser.run("return state.chosen") == first[1]
    assert browser.run("return document.activeElement.dataset.prototype") == str(first[1])
