"""The sentence that a training ends with says what was measured, and no more."""

from pmam_plugin.report.verdict import verdict

FIGURES = {
    "event_f1_macro": 0.6,
    "event_f1_macro_ci": [0.5, 0.7],
    "per_class": {
        "Dog": {"event_f1": 0.8, "events": 12},
        "Owl": {"event_f1": 0.5, "events": 7},
        "Fox": {"event_f1": 0.5, "events": 5},
        "Elk": {"event_f1": None, "events": 0},
    },
}
LEARNED = {"Dog": 40, "Owl": 9, "Fox": 30, "Elk": 2}


def point(share, macro, **f1):
    return {"share": share, "event_f1_macro": macro, "event_f1": {**dict.fromkeys(LEARNED), **f1}}


def test_it_tells_the_figure_its_interval_and_the_class_with_the_fewest_examples():
    text = verdict(FIGURES, LEARNED, 4, 150.0)
    assert text.startswith(
        "On 4 recordings it has not heard before (2 min 30 s), with 24 events, its event F1 is 0.60, 95 % interval "
        "0.50 to 0.70: best for Dog (0.80), worst for Owl (0.50). More examples would help Owl most: it has 9."
    )
    assert text.endswith("Not measured at all, since no held-out recording has it: Elk.")


def test_the_learning_curve_decides_between_weak_classes_and_whether_labels_help():
    rising = [point(0.5, 0.4, Dog=0.8, Owl=0.5, Fox=0.2), point(1.0, 0.6, Dog=0.8, Owl=0.5, Fox=0.5)]
    text = verdict(FIGURES, LEARNED, 4, 150.0, rising)
    assert "help Fox most: it has 30, and its F1 rose by 0.30 with the last of them." in text
    assert "With 50 % of the labelled recordings it reached 0.40: more labels will go on helping." in text
    flat = [point(0.5, 0.6, Dog=0.8, Owl=0.5, Fox=0.5), point(1.0, 0.6, Dog=0.8, Owl=0.5, Fox=0.5)]
    assert "reached 0.60: more labels of the same kind would hardly help." in verdict(FIGURES, LEARNED, 4, 9, flat)


def test_nothing_measured_is_said_to_be_nothing():
    text = verdict({"event_f1_macro": float("nan"), "per_class": {}}, LEARNED, 1, 10.0)
    assert text == "No class occurs in the 1 recording it has not heard before (10.0 s): how good it is cannot be told; label more recordings."  # fmt: skip # noqa: E501


def test_classes_that_are_alike_are_not_ranked():
    per_class = {label: {"event_f1": 0.0, "events": 3} for label in ("Dog", "Fox", "Owl")}
    text = verdict({"event_f1_macro": 0.0, "per_class": per_class}, LEARNED, 2, 60.0)
    assert "its event F1 is 0.00. More examples would help Owl most: it has 9." in text
