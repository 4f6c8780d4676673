"""What a fine-tuning stage starts from, and what it hands on."""

import json
import shutil
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file

from pmam_plugin.brains import EmbeddingContrast, ParameterGroup, Ramp, SetLoss, Supervised, TrainingPlan, Views
from pmam_plugin.brains.records import save_tensors
from pmam_plugin.checkpoints import load_model
from pmam_plugin.data import class_list
from pmam_plugin.encoders.cnn import CNNEncoder
from pmam_plugin.errors import InputError
from pmam_plugin.features import FrontEnds, LogMel
from pmam_plugin.inference import Scoring
from pmam_plugin.losses.set_criterion import SetCriterion
from pmam_plugin.models import AttentionHead, Backbone, FrameDetector, Predictor, Projector
from pmam_plugin.nn.context import IdentityContext
from pmam_plugin.nn.ema import EMATeacher
from pmam_plugin.stages import (
    BestStart,
    Evaluate,
    FineTune,
    Prepare,
    Pretrain,
    PretrainTagger,
    Report,
    RunContext,
    run_stages,
    summary_table,
)
from pmam_plugin.stages.context import Stage
from pmam_plugin.stages.settings import describe
from tests.data.corpus import tiny_corpus
from tests.sedt_models import tiny_sedt


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


def detector(labels):
    torch.manual_seed(0)
    backbone = Backbone(
        FrontEnds(mel=LogMel(n_mels=16)), CNNEncoder("mel", 100.0, (8,), ((4, 16),)), IdentityContext(8)
    )
    return FrameDetector(backbone, AttentionHead(8, len(labels)), labels, 1.0)


def stage(name, model, objectives=(), rate=1e-2, teacher_decay=0.9, groups=None, scoring=None, **options):
    groups = groups or [ParameterGroup("", rate)]
    plan = TrainingPlan(1, {"strong": 2, "weak": 2}, groups, steps_per_epoch=2, max_grad_norm=None)
    scoring = scoring or Scoring()
    return FineTune(name, model, plan, Views(), objectives or [Supervised(0.5)], scoring, teacher_decay, **options)


def test_nothing_is_learned_anew_for_the_sake_of_other_thresholds(context):
    """What is tuned on a trained model is no reason to train it again; what it is chosen by is."""
    model = detector(context.data.labels)
    plain, tuned, chosen = (
        describe(BestStart(stage("one", model, scoring=scoring)))
        for scoring in (
            Scoring(),
            Scoring(segments=False, thresholds="tuned", beta=0.5),
            Scoring(selection_metrics=["psds2"]),
        )
    )
    assert plain == tuned != chosen
    before, after = (describe(Evaluate(model, Scoring(beta=beta))) for beta in (1.0, 0.5))
    assert before != after


@pytest.mark.parametrize("validate_first", [True, False])
def test_what_the_stage_before_left_may_prove_the_best(context, tmp_path, validate_first):
    """The stage spoils everything; only a validation before its first update can tell."""
    model = detector(context.data.labels)
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


def contrast(warm_up):
    return EmbeddingContrast(Projector(8, 16, 4), Predictor(4, 16), Ramp(1.0, shape="none"), warm_up=warm_up)


def test_heads_learn_alone_in_the_first_stage_and_the_second_goes_on_with_them(context, tmp_path):
    model, first, second = detector(context.data.labels), contrast(True), contrast(False)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0  # the teacher, whom the plain stage does not ask, draws too
    plain = stage("first", model).run(context, tmp_path / "plain")
    warmed = stage("first", model, [Supervised(0.5), first]).run(context, tmp_path / "warmed")
    students = [load_file(result.artifacts["student"]) for result in (plain, warmed)]
    for name, value in students[0].items():
        if not name.endswith("conv.bias"):  # batch norm takes it out: its gradient is rounding, which AdamW scales up
            torch.testing.assert_close(students[1][name], value, msg=f"the heads moved the model's {name}")
    heads = load_file(warmed.artifacts["heads"])
    before = {f"projector.{name}": value for name, value in first.projector.state_dict().items()}
    assert not torch.equal(heads["projector.0.weight"], before["projector.0.weight"])
    assert not torch.equal(heads["teacher_projector.model.0.weight"], before["projector.0.weight"])
    # The second stage hardly learns: what it ends with is what it was handed.
    context.artifacts = warmed.artifacts
    slow = stage("second", model, [Supervised(0.5), second], rate=1e-9).run(context, tmp_path / "slow")
    kept = load_file(slow.artifacts["heads"])
    for name in ("projector.0.weight", "predictor.3.weight"):
        torch.testing.assert_close(kept[name], heads[name], rtol=1e-4, atol=1e-5)
    # The average goes on where it was: its third and fourth update take a quarter and a fifth.
    expected = heads["teacher_projector.model.0.weight"].lerp(heads["projector.0.weight"], 1 - 3 / 4 * 4 / 5)
    torch.testing.assert_close(kept["teacher_projector.model.0.weight"], expected, rtol=1e-4, atol=1e-5)
    # A stage without the term leaves them behind.
    without = stage("second", model, [Supervised(0.5)]).run(context, tmp_path / "without")
    assert "heads" not in without.artifacts


def run_on(corpus, folder, *stages, **options):
    context = RunContext(folder, 3, {"device": "cpu", "noprogressbar": True})
    run_stages([Prepare(str(corpus), clip_seconds=1.0, hold_out=0.3, **options), *stages], context)
    return context


def whole_run(corpus, folder, **options):
    model = detector(class_list(corpus))
    evaluate = Evaluate(model, Scoring(thresholds="tuned"), bootstrap=5)
    context = run_on(corpus, folder, stage("only", model), evaluate, Report(model, "t"), **options)
    return context, json.loads((folder / "metrics.json").read_text())


def test_without_a_test_set_there_is_a_model_without_figures(tmp_path):
    corpus = tiny_corpus(tmp_path / "corpus")
    shutil.rmtree(corpus / "audio/validation")
    context, metrics = whole_run(corpus, tmp_path / "run")
    assert metrics["test"] == metrics["segments"] == {}
    assert metrics["selection"].keys() == {"student", "teacher"}
    assert load_model(tmp_path / "run/model").config["provenance"]["metrics"] == {}
    assert "None were recorded" in (tmp_path / "run/model/README.md").read_text()
    assert not (tmp_path / "run/scores").exists()
    assert (tmp_path / "run/report.html").exists()
    assert "no figures" in summary_table(context)


def test_weak_labels_alone_train_and_their_last_weights_are_measured(tmp_path):
    corpus = tiny_corpus(tmp_path / "corpus")
    shutil.rmtree(corpus / "audio/train/strong_label_real")
    context, metrics = whole_run(corpus, tmp_path / "run")
    assert metrics["test"].keys() == {"student", "teacher"}
    assert metrics["selection"] == metrics["segments"] == {}
    assert (metrics["selected"], metrics["selected_processing"]) == ("teacher", "filters")
    kept = load_file(context.artifacts["student"])
    checkpoint = next((tmp_path / "run/stages/only/checkpoints").glob("CKPT*/student.ckpt"))
    last = torch.load(checkpoint, weights_only=True)
    assert all(torch.equal(value, last[name]) for name, value in kept.items())


def test_what_cannot_be_learned_from_the_data_is_refused_at_once(tmp_path):
    corpus = tiny_corpus(tmp_path / "corpus")
    weak = tiny_sedt(clip_seconds=1.0)
    sets = stage("sets", weak, [SetLoss(SetCriterion())])
    table = corpus / "metadata/train/audioset_strong.tsv"
    table.write_text(
        table.read_text()
        .replace("event_label", "event_label\tsoft_label")
        .replace("Dog", "Dog\t0.4")
        .replace("Cat", "Cat\t1")
    )
    with pytest.raises(InputError, match="sets: a set of events cannot be learned from soft labels"):
        run_on(corpus, tmp_path / "soft", sets)
    shutil.rmtree(corpus / "audio/train/strong_label_real")
    with pytest.raises(InputError, match="sets: no clip of strong, weak has events with onset and offset"):
        run_on(corpus, tmp_path / "one", sets)
    shutil.rmtree(corpus / "audio/train/weak")
    for name, stages in {
        "finetune: the data have no strong and no weak clips, only unlabelled, selection, test": stage(
            "finetune", weak
        ),
        "pretrain_tagger: the data have no weak clips": PretrainTagger(
            weak, TrainingPlan(1, {"weak": 2}, [ParameterGroup("", 1e-3)])
        ),
        "pretrain_1: the data have no weak clips": Pretrain(
            1, None, "none", None, TrainingPlan(1, {"weak": 2}, [ParameterGroup("", 1e-3)])
        ),
    }.items():
        before = Never()
        with pytest.raises(InputError, match=name):
            run_on(corpus, tmp_path / "two", before, stages)


class Never(Stage):
    """A stage that takes long."""

    name = "never"
    _arguments: ClassVar[dict[str, str]] = {}

    def run(self, context, folder):
        raise AssertionError("it ran")
