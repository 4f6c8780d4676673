"""Where the masked model of an iteration starts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pmam_plugin.brains import ParameterGroup, TrainingPlan
from pmam_plugin.brains.records import save_tensors
from pmam_plugin.errors import InputError
from pmam_plugin.losses.prototype import PrototypeBCE
from pmam_plugin.stages import Pretrain, RunContext
from pmam_plugin.stages.prepare import copy_with_artifact
from tests.sedt_models import tiny_sedt
from tests.tiny_models import tiny_detector

PLAN = TrainingPlan(1, {"strong": 2}, [ParameterGroup("", 1e-3)])
PROTOTYPES = SimpleNamespace(means=np.eye(4, dtype=np.float32))


def run_so_far(folder, stages):
    """A run in which each of ``stages`` has left weights that are all its number."""
    context = RunContext(folder, 1, {"device": "cpu"})
    for number, name in enumerate(stages, start=1):
        record = SimpleNamespace(stage=name, artifacts={})
        if not name.startswith("estep"):
            state = {
                key: torch.full_like(value, number) for key, value in tiny_detector().backbone.state_dict().items()
            }
            record.artifacts = {"backbone": f"{name}.safetensors"}
            context.artifacts["backbone"] = folder / f"{name}.safetensors"
            save_tensors(context.artifacts["backbone"], state)
        context.records.append(record)
    return context


@pytest.mark.parametrize(
    ("before", "restart", "expected"),
    [
        (["load_weights", "estep_1"], True, 1),
        (["load_weights", "embed", "estep_1", "pretrain_1", "estep_2"], True, 2),
        (["load_weights", "embed", "estep_1", "pretrain_1", "estep_2"], False, 4),
        (["load_weights", "estep_1", "pretrain_1", "estep_2", "pretrain_2", "estep_3"], True, 1),
        (["estep_1", "pretrain_1", "estep_2"], True, None),
        (["estep_1", "pretrain_1", "estep_2"], False, 2),
        (["pretrain_tagger", "estep_1", "pretrain_1", "estep_2"], True, 1),
    ],
)
def test_a_restarted_iteration_starts_where_the_first_did(tmp_path, before, restart, expected):
    context = run_so_far(tmp_path, before)
    given = tiny_detector().backbone
    stage = Pretrain(before.count("pretrain_1") + 1, given, "none", PrototypeBCE(), PLAN, tag_weight=0, restart=restart)
    built = stage._build(context, PROTOTYPES).backbone.state_dict()
    for name, value in given.state_dict().items():
        torch.testing.assert_close(built[name], value if expected is None else torch.full_like(value, expected))


def test_weights_of_another_kind_of_model_are_refused(tmp_path):
    with pytest.raises(InputError, match="another model than SEDT"):
        copy_with_artifact(tiny_sedt(), run_so_far(tmp_path, ["load_weights"]))
