"""Names of the PMAM reference's published state dictionaries (github.com/cai525/Transformer4SED) and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from pmam_plugin.errors import InputError

_TRANSFORMER = "backbone.encoder.transformer."
_ATTENTION_POOL = (
    (r"\w*att_token", "query"),
    (r"\w+\.in_proj_(weight|bias)", r"in_projection.\1"),
    (r"\w+\.out_proj\.(weight|bias)", r"out_projection.\1"),
)
_BLOCK = "backbone.context.blocks."
# Reference name -> ours; {tags} is where the tag branch lives, {head} the frame classifier.
_RENAMES = (
    (r"backbone\.(\w+_token|\w+_embed|patch_embed\..+|blocks\..+|norm\..+)", rf"{_TRANSFORMER}transformer.\1"),
    (r"out_norm\.(.+)", rf"{_TRANSFORMER}out_norm.\1"),
    *((rf"f_pool_module\.{theirs}", f"{_TRANSFORMER}pool.{ours}") for theirs, ours in _ATTENTION_POOL),
    *((rf"at_adpater\.0\.{theirs}", f"{{tags}}.pool.{ours}") for theirs, ours in _ATTENTION_POOL),
    (r"at_adpater\.1\.(.+)", r"{tags}.classifier.\1"),
    (r"cnn\.cnn\.conv(\d+)\.(.+)", r"backbone.encoder.cnn.stack.stages.\1.conv.\2"),
    (r"cnn\.cnn\.batchnorm(\d+)\.(.+)", r"backbone.encoder.cnn.stack.stages.\1.norm.\2"),
    (r"cnn\.cnn\.cg(\d+)\.linear\.(.+)", r"backbone.encoder.cnn.stack.stages.\1.gate.\2"),
    (r"(cnn|transformer)_projector\.(.+)", r"backbone.encoder.\1_projection.\2"),
    (r"merge_weight", "backbone.encoder.merge_weight"),
    (r"decoder\.encoder_blocks\.(\d+)\.(norm[12]\..+)", rf"{_BLOCK}\1.\2"),
    (r"decoder\.encoder_blocks\.(\d+)\.attn\.pos_bias_u", rf"{_BLOCK}\1.attention.content_bias"),
    (r"decoder\.encoder_blocks\.(\d+)\.attn\.pos_bias_v", rf"{_BLOCK}\1.attention.distance_bias"),
    (r"decoder\.encoder_blocks\.(\d+)\.attn\.linear_pos\.(.+)", rf"{_BLOCK}\1.attention.distance_projection.\2"),
    (r"decoder\.encoder_blocks\.(\d+)\.attn\.(in|out)_proj\.(.+)", rf"{_BLOCK}\1.attention.\2_projection.\3"),
    (r"decoder\.encoder_blocks\.(\d+)\.mlp\.fc1\.(.+)", rf"{_BLOCK}\1.mlp.0.\2"),
    (r"decoder\.encoder_blocks\.(\d+)\.mlp\.fc2\.(.+)", rf"{_BLOCK}\1.mlp.2.\2"),
    (r"mlm_mlp\.(.+)", r"head.layers.\1"),
    (r"mask_token", "mask_token"),
    (r"classifier\.(.+)", r"{head}.\1"),
)
# AudioSet's heads are never used, and adapters were merged into the weights before the file was written: applying
# them again would count them twice.
_LEFT_OUT = re.compile(r"backbone\.head(_dist)?\.|.*\.lora_[AB]$")


def rename_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state of the reference to ours.

    A pre-training state (420 tensors, recognised by its ``mlm_mlp``) becomes one of ``MaskedModel``, a fine-tuned one
    (315 tensors) one of ``FrameDetector`` with ``LinearSoftmaxHead``; what belongs to the backbone has the same names
    in both. Left out are AudioSet's heads, merged adapters and the classifier of a pre-training state, which was never
    trained. The model has to be built with ``centred_patches=False`` and ``normalized_residual=True``.

    Args:
        state: name -> tensor; a ``module.`` prefix of all names is removed.

    Raises:
        InputError: a name that is none of the reference's.
    """
    names = {name: name.removeprefix("module.") for name in state}
    masked = any(name.startswith("mlm_mlp.") for name in names.values())
    places = {"tags": "tag_head", "head": None} if masked else {"tags": "head.tagger", "head": "head.classifier"}
    renamed = {}
    for name, plain in names.items():
        ours = _rename(plain)
        if ours is None:
            if not _LEFT_OUT.match(plain):
                raise InputError(f"{name} is no tensor of a Transformer4SED PMAM checkpoint; give a file of that model")
        elif not (masked and ours.startswith("{head}")):
            renamed[ours.format(**places)] = state[name]
    return renamed


def _rename(name: str) -> str | None:
    if _LEFT_OUT.match(name):
        return None
    for pattern, replacement in _RENAMES:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(replacement)
    return None
