"""Tiny trainings whose batches any number of processes and passes may share.

Dropout is off and batch norms rest, the two things that see a part only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pmam_plugin import processes
from pmam_plugin.augment import ConditionalMixup, FilterAugment, FrameShift, Mixup
from pmam_plugin.brains import MaskedBrain, MeanTeacherBrain, TrainingPlan
from pmam_plugin.brains.base import StageBrain
from pmam_plugin.brains.objectives import Consistency, EmbeddingContrast, MixedPseudoLabels, Supervised
from pmam_plugin.brains.optimisation import ParameterGroup
from pmam_plugin.brains.plan import StageRun
from pmam_plugin.brains.schedules import Ramp
from pmam_plugin.brains.sedt import PatchBrain, TaggerBrain
from pmam_plugin.brains.set_loss import PseudoEvents, SetLoss
from pmam_plugin.brains.views import Views
from pmam_plugin.data import evaluation_loader, training_loader
from pmam_plugin.data.batch import Item
from pmam_plugin.encoders.cnn import CNNEncoder
from pmam_plugin.features import FrontEnds, LogMel, SEDTMel
from pmam_plugin.losses.prototype import PrototypeBCE
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models import (
    SEDT,
    SPSEDT,
    AttentionHead,
    AudioTagger,
    Backbone,
    FrameDetector,
    MaskedModel,
    PatchSampler,
)
from pmam_plugin.nn.context import RecurrentContext
from pmam_plugin.nn.ema import EMATeacher
from pmam_plugin.nn.heads import PredictionHead
from pmam_plugin.nn.masking import BlockMasking
from pmam_plugin.postprocessing import Scoring
from pmam_plugin.prototypes import ArrayStore
from tests.sedt_models import tiny_network

BATCH = {"strong": 2, "weak": 2, "unlabelled": 3}
SUBSETS = {"strong": range(5), "weak": range(5, 11), "unlabelled": range(11, 20)}
FRAMES, SECONDS, RATE = 25, 1.0, 16000


class Clips(torch.utils.data.Dataset[Item]):
    """Noise of different lengths with labels."""

    indices = SUBSETS

    def __init__(self, frames: int = FRAMES) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Item:
        draw = torch.Generator().manual_seed(index)
        group = next(number for number, clips in enumerate(SUBSETS.values()) if index in clips)
        wave, seconds = torch.randn(RATE, generator=draw), float(torch.rand((), generator=draw)) * 0.7 + 0.3
        wave[round(seconds * RATE) :] = 0.0
        strong = torch.zeros(self.frames, 3)
        if group == 0:
            first = int(torch.randint(self.frames // 3, (), generator=draw))
            strong[first : first + self.frames // 4, index % 3] = 1.0
        weak = strong.amax(dim=0)
        if group == 1:
            weak[index % 3] = 1.0
        kind = (group == 0, group < 2, (0, 2, 3)[group])
        known = torch.arange(3) != index % 4  # each of three corpora lacks a class
        return Item(str(index), wave, seconds, strong, weak, *kind, RATE, annotated=known)


def plan(updates: int = 3) -> TrainingPlan:
    # Biases of attention have no gradient, or hardly one, but rounding errors, which AdamW turns into whole steps.
    groups = [ParameterGroup(r"norm|backbone\.body|in_proj_bias|attention\.bias", 0.0), ParameterGroup("", 2e-3)]
    return TrainingPlan(1, BATCH, groups, steps_per_epoch=updates, log_every=1)


def small_backbone() -> Backbone:
    torch.manual_seed(0)
    encoder = CNNEncoder("mel", 100.0, (4, 8), ((2, 4), (2, 4)), dropout=0.0)
    return Backbone(FrontEnds(mel=LogMel(n_mels=16)), encoder, RecurrentContext(8, 4, 1, dropout=0.0))


def score(scored: Mapping[str, Any], scoring: Scoring) -> dict[str, float]:
    """Something that changes with every clip, and with how often it counts."""
    values = [float(scored[clip].table.iloc[:, 2:].to_numpy().mean()) for clip in sorted(scored)]
    return {"selection": sum(values), "clips": float(len(values))}


def mean_teacher(folder: Path, options: dict[str, Any]) -> StageBrain:
    """Every term of frame-based fine-tuning, on mixtures whose partners lie in other parts."""
    backbone = small_backbone()
    student = FrameDetector(backbone, AttentionHead(8, 3, dropout=0.0), ("a", "b", "c"), SECONDS)
    objectives = [
        Supervised(),
        Consistency(Ramp(1.0, shape="none")),
        MixedPseudoLabels(Ramp(2.0, shape="none"), Ramp(1.0, shape="none")),
        EmbeddingContrast(nn.Linear(8, 4), nn.Linear(4, 4), Ramp(1.0, shape="none")),
    ]
    views = Views(
        FrameShift(0.2, SECONDS),
        ConditionalMixup(probability=0.8),
        "power",
        mix_teacher=False,
        mix_unlabelled=True,
        student=FilterAugment(minimum_bins=2, probability=0.7),
    )
    return MeanTeacherBrain(
        student,
        EMATeacher(student, 0.5),
        views,
        objectives,
        StageRun("finetune", plan(), folder, 1, options),
        scoring=Scoring(),
        score=score,
    )


def masked(folder: Path, options: dict[str, Any]) -> StageBrain:
    """Masked pre-training on clips of different lengths, so that parts hide different numbers of frames."""
    model = MaskedModel(
        small_backbone(), BlockMasking(0.6, 3, {"mask_token": 0.8, "itself": 0.2}), PredictionHead(8, 5)
    )
    if processes.share()[0] == 0 and not (folder.parent / "store").exists():
        store = ArrayStore(folder.parent / "store", FRAMES, 4)
        posteriors = torch.rand(20, FRAMES, 4, generator=torch.Generator().manual_seed(0))
        store.extend([str(clip) for clip in range(20)], posteriors, [FRAMES] * 20)
    processes.wait_for_all()
    store = ArrayStore.open(folder.parent / "store")
    prototypes = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    augmentation = Mixup(10.0, 0.5, 0.9)
    run = StageRun("pretrain", plan(), folder, 1, options)
    return MaskedBrain(model, PrototypeBCE(), prototypes, store, augmentation, run, tag_weight=0.0, minimum_share=0.02)


def sedt(folder: Path, options: dict[str, Any]) -> StageBrain:
    """The set loss, on labels and on the teacher's events."""
    torch.manual_seed(0)
    student = SEDT(FrontEnds(mel=SEDTMel()), tiny_network(dropout=0.0), ("a", "b", "c"), SECONDS)
    # Queries as alike as they start out can be matched in ways of equal cost, of which rounding would take one.
    nn.init.normal_(student.network.interval_head.layers[-1].weight)
    nn.init.normal_(student.network.event_queries, std=5.0)
    teacher = EMATeacher(student, 0.5)
    with torch.no_grad():  # a copy would list the student's own events, and |x - x| has a kink
        for parameter in teacher.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    objectives = [SetLoss(SetCriterion()), PseudoEvents(SetCriterion(), Ramp(1.0, shape="none"), threshold=0.3)]
    views = Views(mixing=Mixup(10.0, 0.5, 0.9), domain="power")
    return MeanTeacherBrain(
        student,
        teacher,
        views,
        objectives,
        StageRun("sedt", plan(1), folder, 1, options),
        scoring=Scoring(),
        score=score,
    )


def tagger(folder: Path, options: dict[str, Any]) -> StageBrain:
    """Tagging, with unlabelled clips in the batch."""
    torch.manual_seed(0)
    model = AudioTagger(FrontEnds(mel=SEDTMel()), tiny_network().backbone, ("a", "b", "c"), 8)
    return TaggerBrain(model, Mixup(10.0, 0.5, 0.9), StageRun("tagger", plan(1), folder, 1, options))


def patches(folder: Path, options: dict[str, Any]) -> StageBrain:
    """The search for patches."""
    torch.manual_seed(0)
    network = tiny_network(dropout=0.0)
    model = SPSEDT(FrontEnds(mel=SEDTMel()), network, PatchSampler(patches=3), 32, 0.0, SECONDS)
    return PatchBrain(model, SetCriterion(), StageRun("patches", plan(1), folder, 1, options))


KINDS: dict[str, Callable[[Path, dict[str, Any]], StageBrain]] = {
    "mean_teacher": mean_teacher,
    "masked": masked,
    "sedt": sedt,
    "tagger": tagger,
    "patches": patches,
}


def train(
    kind: str, folder: Path, micro_batch: int | None = None, workers: int = 0, **chosen: Any
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and curves of a training by all processes together; ``chosen`` are further run options."""
    rank, world = processes.share()
    options = {"device": "cpu", "noprogressbar": True, "micro_batch": micro_batch, **chosen}
    backend = torch.distributed.get_backend() if torch.distributed.is_initialized() else "none"
    if backend == "nccl":
        options["device"] = f"cuda:{rank}"
    if world > 1:
        options |= {"distributed_launch": True, "distributed_backend": backend}
    brain = KINDS[kind](folder, options)
    frames = FRAMES
    if kind == "sedt":
        frames = brain.student.output_frames(RATE)  # type: ignore[attr-defined]
    clips = Clips(frames)
    updates = int(brain.plan.steps_per_epoch)
    loader = training_loader(clips, BATCH, 3, updates, workers, rank, world)
    valid = evaluation_loader(clips, 2, workers, [0, 3, 5, 8, 12], rank, world) if updates > 1 else None
    brain.train(loader, valid)
    state = {
        f"{name}.{key}": value.cpu().clone()
        for name, module in {**brain.raw, **brain.candidates()}.items()
        for key, value in module.state_dict().items()
    }
    return state, brain.history.curves


def work(rank: int, folder: str, kinds: list[str]) -> None:
    """What a process of several does."""
    for kind in kinds:
        results = train(kind, Path(folder) / kind / str(processes.share()[1]))
        torch.save(results, Path(folder) / kind / f"{processes.share()[1]}-{rank}.pt")
