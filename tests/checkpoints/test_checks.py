"""Configurations that name known parts only, and still make no sense."""

import pytest

from pmam_plugin.checkpoints import load_model, save_model
from pmam_plugin.encoders.base import Windows
from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json, write_json
from pmam_plugin.postprocessing.filters import PostProcessing
from tests.tiny_models import LABELS, tiny_detector


@pytest.fixture
def folder(tmp_path):
    return save_model(tmp_path / "model", tiny_detector(), PostProcessing("soft", 0.2), {"seed": 3})


def change(folder, **changes):
    """Replace entries of config.json; a double underscore goes one level down."""
    config = read_json(folder / "config.json")
    for path, value in changes.items():
        *above, last = path.split("__")
        node = config
        for name in above:
            node = node[name]
        node[last] = value
    write_json(folder / "config.json", config)


def relabelled(first):
    labels = [first, *LABELS[1:]]
    return {"labels": labels, "model__labels": labels}


def clip(seconds):
    return {"clip_seconds": seconds, "model__clip_seconds": seconds}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"nonsense": 1}}, "options may name windows and temperature only, not {'nonsense': 1}"),
        ({"options": [1]}, "options may name"),
        ({"options": {"temperature": 0}}, "temperature is 0, not a number above 0"),
        ({"options": {"temperature": "hot"}}, "temperature is 'hot'"),
        ({"options": {"windows": 3}}, "windows is 3, not Windows"),
        ({"postprocessing": {"type": "LogMel", "n_mels": 16}}, "postprocessing is LogMel, which makes no events"),
        ({"postprocessing": {"threshold": 0.5}}, "postprocessing is dict, which makes no events"),
        ({"postprocessing__threshold": "high"}, "threshold must be a number"),
        ({"postprocessing__threshold": {"bell": 0.5}}, "postprocessing has no threshold for dog, speech"),
        ({"postprocessing__median_seconds": {"bell": 0.5}}, "postprocessing has no median_seconds for dog, speech"),
        ({"postprocessing__median_seconds": 1e9}, "median_seconds must be within 0 and 600 s"),
        ({"provenance": "somewhere"}, "provenance is 'somewhere', not a mapping"),
        (clip(0), "clip_seconds is 0, not within 0 and 3600 s"),
        (clip(-1.0), "clip_seconds is -1"),
        (clip(1e9), "clip_seconds is 1000000000.0"),
        (relabelled("a\tb"), r"'a\\tb' cannot be the name of a class"),
        (relabelled("onset"), "'onset' cannot be the name of a class"),
        (relabelled(" "), "' ' cannot be the name of a class"),
        (relabelled(7), "cannot be the name of a class"),
        ({"model__backbone__encoder": None}, "the model it describes cannot be built"),
        ({"model__head": {"type": "PostProcessing"}}, "the model it describes cannot be built"),
    ],
)
def test_what_could_not_be_used_is_refused_when_it_is_loaded(folder, changes, message):
    change(folder, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder)
    assert str(caught.value).startswith(str(folder / "config.json"))
    assert "\n" not in str(caught.value)


def test_what_can_be_used_is_not(folder):
    save_model(folder, tiny_detector(), options={"windows": Windows(1.0), "temperature": 2})
    assert load_model(folder).options["temperature"] == 2
    change(folder, options={}, postprocessing=None, provenance=None)
    assert load_model(folder).postprocessing is None
