"""torch.hub entries: s3prl-style upstreams, with no s3prl needed.

>>> import torch  # doctest: +SKIP
>>> upstream = torch.hub.load("this/checkout", "pmam_local", source="local", ckpt="model/folder")  # doctest: +SKIP
>>> states = upstream([torch.randn(16000)])["hidden_states"]  # doctest: +SKIP
"""

dependencies = ["torch", "torchaudio", "numpy", "pandas", "soundfile", "soxr", "timm", "safetensors", "huggingface_hub"]

from pmam_plugin.upstream.registry import pmam, pmam_hub, pmam_local  # noqa: E402

__all__ = ["pmam", "pmam_hub", "pmam_local"]
