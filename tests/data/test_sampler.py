from collections import Counter

import pytest
import torch
from hypothesis import given, settings, strategies as st

from pmam_plugin.data import SubsetBatchSampler, share_of
from pmam_plugin.errors import InputError

ORDER = ("strong", "synthetic", "weak", "unlabelled")


def subsets(sizes):
    """Subset -> its indices, numbered on."""
    indices, first = {}, 0
    for name, size in sizes.items():
        indices[name] = range(first, first + size)
        first += size
    return indices


@st.composite
def mixtures(draw):
    sizes = {name: draw(st.integers(1, 30)) for name in ORDER}
    batch = {name: draw(st.integers(0, 6)) for name in ORDER}
    if not any(batch.values()):
        batch["weak"] = 1
    return subsets(sizes), batch, draw(st.integers(0, 2**40))


@given(mixtures(), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_batch_has_its_share_of_every_subset_in_order(mixture, epoch):
    indices, batch, seed = mixture
    sampler = SubsetBatchSampler(indices, batch, seed)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    expected = [name for name in ORDER for _ in range(batch[name])]
    for chosen in batches:
        assert [next(name for name in ORDER if index in indices[name]) for index in chosen] == expected


@given(mixtures(), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_a_whole_subset_is_used_before_any_clip_is_used_again(mixture, world):
    indices, batch, seed = mixture
    world = min(world, sum(batch.values()))
    samplers = [SubsetBatchSampler(indices, batch, seed, rank=rank, world_size=world) for rank in range(world)]
    for name in (name for name in ORDER if batch[name]):
        size, count = batch[name], len(indices[name])
        stream = []
        for number in range(3 * count // size + 1):
            together = {
                row: index
                for rank, sampler in enumerate(samplers)
                for row, index in zip(
                    share_of(sum(batch.values()), number, rank, world), sampler.batch_at(number), strict=True
                )
            }
            stream += [together[row] for row in sorted(together) if together[row] in indices[name]]
        for begin in range(0, len(stream) - count + 1, count):
            assert sorted(stream[begin : begin + count]) == list(indices[name])
        uses = Counter(stream)
        assert max(uses.values()) - min(uses[index] for index in indices[name]) <= 1


def test_the_length_of_an_epoch_is_set_by_the_smallest_subset():
    indices = subsets({"strong": 20, "weak": 9, "unlabelled": 100})
    batch = {"strong": 4, "weak": 2, "unlabelled": 6}
    assert len(SubsetBatchSampler(indices, batch, 0)) == 4
    assert len(SubsetBatchSampler(indices, batch, 0, world_size=2, rank=1)) == 4, "on any number of processes"
    assert len(SubsetBatchSampler(indices, {**batch, "weak": 0}, 0)) == 5
    assert len(SubsetBatchSampler(indices, batch, 0, steps_per_epoch=17)) == 17
    assert len(SubsetBatchSampler(indices, {"weak": 50}, 0)) == 1


def test_epochs_differ_and_seeds_decide():
    indices, batch = subsets({"strong": 12, "unlabelled": 50}), {"strong": 2, "unlabelled": 3}

    def epoch(number, seed=1):
        sampler = SubsetBatchSampler(indices, batch, seed)
        sampler.set_epoch(number)
        return list(sampler)

    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)
    assert epoch(1) != epoch(1, seed=2)


def test_the_order_does_not_depend_on_how_the_batch_is_written():
    indices = subsets({"strong": 12, "unlabelled": 50})
    one = SubsetBatchSampler(indices, {"strong": 2, "unlabelled": 3}, 1)
    other = SubsetBatchSampler(indices, {"unlabelled": 3, "weak": 0, "strong": 2}, 1)
    assert list(one) == list(other)


def test_processes_share_the_batch_of_one():
    indices, batch = subsets({"strong": 24, "unlabelled": 96}), {"strong": 2, "unlabelled": 5}
    samplers = [SubsetBatchSampler(indices, batch, 3, rank=rank, world_size=3) for rank in range(3)]
    for chosen, whole in zip(zip(*samplers, strict=True), SubsetBatchSampler(indices, batch, 3), strict=True):
        assert sorted(index for share in chosen for index in share) == sorted(whole)


def test_wishes_that_cannot_be_met_are_refused():
    indices = subsets({"strong": 4, "weak": 0})
    with pytest.raises(InputError, match="wants 2 weak clips but there are none; add the recordings or set"):
        SubsetBatchSampler(indices, {"strong": 1, "weak": 2}, 0)
    with pytest.raises(InputError, match="wants 1 unlabelled clips but there are none"):
        SubsetBatchSampler(indices, {"unlabelled": 1}, 0)
    with pytest.raises(InputError, match="at least one subset"):
        SubsetBatchSampler(indices, {"strong": 0}, 0)
    with pytest.raises(InputError, match="a batch of 1 clips cannot be shared by 2 processes"):
        SubsetBatchSampler(indices, {"strong": 1}, 0, world_size=2)
    with pytest.raises(InputError, match="unknown subset 'strung'"):
        SubsetBatchSampler(indices, {"strung": 1}, 0)
    with pytest.raises(InputError, match="steps_per_epoch is 'all'"):
        SubsetBatchSampler(indices, {"strong": 1}, 0, steps_per_epoch="all")
    with pytest.raises(ValueError, match="epochs count from 1"):
        SubsetBatchSampler(indices, {"strong": 1}, 0).set_epoch(0)


class Numbers(torch.utils.data.Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumed_in_mid_epoch_goes_on_with_the_same_batches(tmp_path, workers):
    from speechbrain.dataio.dataloader import SaveableDataLoader
    from speechbrain.utils.checkpoints import Checkpointer

    def loader():
        sampler = SubsetBatchSampler(subsets({"strong": 9, "unlabelled": 20}), {"strong": 1, "unlabelled": 2}, 7)
        return SaveableDataLoader(
            Numbers(29), batch_sampler=sampler, num_workers=workers, generator=torch.Generator().manual_seed(0)
        )

    def run(data, first_epoch, stop=None):
        seen, checkpointer = [], Checkpointer(tmp_path, {"loader": data})
        checkpointer.recover_if_possible()
        for epoch in range(first_epoch, 4):
            data.batch_sampler.set_epoch(epoch)
            for batch in data:
                seen.append(batch.tolist())
                if stop is not None and len(seen) == stop:
                    checkpointer.save_checkpoint(end_of_epoch=False)
                    return seen
        return seen

    unbroken = run(loader(), 1)
    assert len(unbroken) == 27
    before = run(loader(), 1, stop=13)
    after = run(loader(), 2)
    assert before + after == unbroken
