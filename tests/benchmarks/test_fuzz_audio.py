"""Mutated headers end in samples or in a sentence (``python benchmarks/fuzz_audio.py`` tries ten thousand)."""

import random

from benchmarks.fuzz_audio import mutated, mutations, recordings, run


def test_a_few_hundred_broken_headers_of_every_format_are_heard_or_refused():
    figures = run(3 * len(recordings()), seed=1)
    assert figures.failures == []
    assert figures.outcomes["heard"] > 50
    assert figures.outcomes["refused"] > 50
    assert figures.slowest < 5.0
    assert figures.peak_megabytes - figures.start_megabytes < 500


def test_mutations_differ_and_come_again_with_their_seed():
    first = [content for _, content in mutations(200, seed=3)]
    assert first == [content for _, content in mutations(200, seed=3)]
    assert len(set(first)) > 190
    assert mutated(b"", random.Random(0)) == b""
