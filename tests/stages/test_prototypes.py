from types import SimpleNamespace

import pytest
import torch

from pmam_plugin.stages import EStep
from tests.tiny_models import tiny_detector


class Asked(Exception):
    pass


def test_the_mixture_is_fitted_where_the_models_run(tmp_path):
    """Processes that exchange sums over NCCL have nothing to exchange on the CPU."""

    def estimator(**options):
        raise Asked(str(options["device"]))

    stage = EStep(1, tiny_detector().backbone, estimator, components=4)
    context = SimpleNamespace(
        device=torch.device("cuda", 1), seed=1, data=SimpleNamespace(seconds_by_clip=lambda _: {})
    )
    store = SimpleNamespace(batches=lambda **_: [])
    with pytest.raises(Asked, match="cuda:1"):
        stage._fit(context, store, tmp_path)
