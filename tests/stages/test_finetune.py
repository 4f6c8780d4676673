"""What a fine-tuning stage starts from, and what it hands on."""

import pytest
import torch
from safetensors.torch import load_file

from pmam_plugin.brains import ParameterGroup, Supervised, TrainingPlan, Views
from pmam_plugin.brains.base import save_tensors
from pmam_plugin.encoders.cnn import CNNEncoder
from pmam_plugin.features import FrontEnds, LogMel
from pmam_plugin.inference import Scoring
from pmam_plugin.models import Backbone, FrameDetector
from pmam_plugin.models.attention_head import AttentionHead
from pmam_plugin.nn.context import IdentityContext
from pmam_plugin.nn.ema import EMATeacher
from pmam_plugin.stages import FineTune, Prepare, RunContext, run_stages
from tests.data.corpus import tiny_corpus


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Clips of a second, ready to be trained on."""
    corpus = tiny_corpus(tmp_path_factory.mktemp("data") / "corpus")
    context = RunContext(tmp_path_factory.mktemp("run"), 3, {"device": "cpu", "noprogressbar": True})
    run_stages([Prepare(str(corpus), clip_seconds=1.0, hold_out=0.3)], context)
    return context


@pytest.fixture
def context(prepared):
    return RunContext(prepared.folder, 3, prepared.run_opts, prepared=prepared.prepared)


def detector(context):
    torch.manual_seed(0)
    backbone = Backbone(
        FrontEnds(mel=LogMel(n_mels=16)), CNNEncoder("mel", 100.0, (8,), ((4, 16),)), IdentityContext(8)
    )
    return FrameDetector(backbone, AttentionHead(8, 2), context.data.labels, 1.0)


def stage(name, model, objectives=(), rate=1e-2, teacher_decay=0.9, groups=None, **options):
    groups = groups or [ParameterGroup("", rate)]
    plan = TrainingPlan(1, {"strong": 2, "weak": 2}, groups, steps_per_epoch=2)
    return FineTune(name, model, plan, Views(), objectives or [Supervised(0.5)], Scoring(), teacher_decay, **options)


@pytest.mark.parametrize("validate_first", [True, False])
def test_what_the_stage_before_left_may_prove_the_best(context, tmp_path, validate_first):
    """The stage spoils everything; only a validation before its first update can tell."""
    model = detector(context)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    context.artifacts = {name: tmp_path / f"{name}.safetensors" for name in ("student", "teacher")}
    save_tensors(context.artifacts["student"], start)
    teacher = EMATeacher(model, 0.9)
    save_tensors(context.artifacts["teacher"], teacher.state_dict())
    result = stage("second", model, rate=1e3, validate_first=validate_first).run(context, tmp_path / "second")
    kept = load_file(result.artifacts["student"])
    assert all(torch.equal(kept[name], start[name]) for name in start) == validate_first
    kept = load_file(result.artifacts["teacher"])
    same = all(torch.equal(kept[f"model.{name}"], start[name]) for name in start)
    assert same == validate_first
    steps = [int(step) for step, _ in result.curves["student_selection"]]
    assert steps == ([0, 2] if validate_first else [2])
