"""Any audio model of Hugging Face's transformers (AST, Wav2Vec2, HuBERT, WavLM, ...) as a frame encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from pmam_plugin.config import configurable
from pmam_plugin.encoders.base import EncoderOutput, FrameEncoder, Wanted
from pmam_plugin.errors import InputError, reason
from pmam_plugin.nn.interpolate import Grid

# Nothing of a stranger's configuration is code, and what only classifiers need is left out.
_DROPPED = ("auto_map", "architectures", "id2label", "label2id", "_name_or_path", "transformers_version", "dtype")
# Masks and dropped layers of their own, drawn from numpy's global generator: augmentation is the experiment's.
_OFF = {"apply_spec_augment": False, "layerdrop": 0.0}
_SPECIAL_TOKENS = 2  # of AST: class and distillation
_AST_SILENCE = 4.2677393 / (2 * 4.5689974)  # its padding: zeros before they are standardised


@configurable
class TransformersEncoder(FrameEncoder):
    """Frames of a transformers model, built from its configuration; :meth:`pretrained` fetches one by name.

    Its weights are saved with the model and the configuration is all in ``config``, so that a model folder is loaded
    without the Hub. Models of raw waveforms need ``FrontEnds(wave=RawWaveform())``, AST a
    :class:`~pmam_plugin.features.KaldiMel` of its own level, window, mean and deviation. How a model's tokens lie in
    time is known of AST and of all that are built on convolutions over waveforms like Wav2Vec2; of others say it by
    ``stride``, ``special_tokens``, ``bands`` and ``layout``.

    Tokens of the tag branch are the frames. Layers for ``embed``: ``layer_0 ... layer_n``, the hidden states as
    transformers counts them, bands averaged.

    Args:
        config: plain values of the model's configuration, with its ``model_type``.
        layer: hidden state that becomes the frames; None is the model's last output.
        trainable: train the model; else it is frozen.
        feature: name of the feature it reads.
        feature_rate: frames per second of that feature; None is 16000 for waveforms and 100 for others.
        frame_rate: frames per second it returns, interpolated between its tokens; None is as many as there are tokens.
        stride: feature frames from token to token.
        special_tokens: tokens at the beginning that stand for no time.
        bands: tokens of a time step, which follow each other band by band.
        layout: what the model reads: ``waveform`` (batch, samples), ``frames_first`` (batch, frames, mel) or
            ``mel_first``.
        longest: feature frames it takes, to which shorter clips are padded; None is any.
        padding: what they are padded with.
        normalise: bring every waveform to mean 0 and deviation 1, which many were trained with.

    Raises:
        InputError: transformers is not installed or knows no such model, or how its tokens lie is neither known nor
            said, or a clip is longer than the model takes.
    """

    model: Any

    def __init__(
        self,
        config: Mapping[str, Any],
        layer: int | None = None,
        trainable: bool = False,
        feature: str = "wave",
        feature_rate: float | None = None,
        frame_rate: float | None = None,
        stride: int | None = None,
        special_tokens: int | None = None,
        bands: int | None = None,
        layout: Literal["waveform", "frames_first", "mel_first"] | None = None,
        longest: int | None = None,
        padding: float | None = None,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.model = build_model(config)
        self.model.requires_grad_(trainable)
        self.feature, self.normalise = feature, normalise
        known = _known_tokens(self.model.config)
        said = {"stride": stride, "special_tokens": special_tokens, "bands": bands, "layout": layout}
        tokens = {**known, **{name: value for name, value in said.items() if value is not None}}
        missing = [name for name in said if name not in tokens]
        if missing:
            raise InputError(f"{config.get('model_type')}: nobody says how its tokens lie in time; give {missing[0]}")
        self.stride, self.special_tokens = tokens["stride"], tokens["special_tokens"]
        self.bands, self.layout = tokens["bands"], tokens["layout"]
        self.longest = known.get("longest") if longest is None else longest
        self.padding = known.get("padding", 0.0) if padding is None else padding
        rate = feature_rate or (16000.0 if self.layout == "waveform" else 100.0)
        self.frame_rate = rate / self.stride if frame_rate is None else frame_rate
        # Of tokens that overlap, each stands at the middle of what it hears.
        ratio = self.frame_rate * self.stride / rate
        self.grid = Grid(ratio, ratio * (known.get("heard", self.stride) - self.stride) / (2 * self.stride))
        self._hop = rate / self.frame_rate
        self.dim = self.token_dim = self.model.config.hidden_size
        count = self.model.config.num_hidden_layers
        if layer is not None and not 0 <= layer <= count:
            raise InputError(f"{config.get('model_type')}: there is no layer {layer} among {count}")
        self.layer = layer
        self.layers = tuple(f"layer_{number}" for number in range(count + 1))

    @classmethod
    def pretrained(cls, name: str, revision: str | None = None, **arguments: Any) -> TransformersEncoder:
        """The encoder of a published model, for YAML by ``!apply:``.

        Args:
            name: Hub id, or a folder on this machine; safetensors only, and no code of its own is run.
            revision: of the Hub's.
            arguments: of the constructor, but for ``config``.

        Raises:
            InputError: it cannot be fetched, or see the class.
        """
        _, auto_model, auto_features = _transformers()
        try:
            model = auto_model.from_pretrained(name, revision=revision, use_safetensors=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{name}: no model that transformers could load ({reason(error)}); check name and revision"
            ) from error
        if "normalise" not in arguments:
            try:
                extractor = auto_features.from_pretrained(name, revision=revision, trust_remote_code=False)
                arguments["normalise"] = hasattr(model.config, "conv_stride") and bool(extractor.do_normalize)
            except (OSError, ValueError, AttributeError):  # it has none, and then nothing to say
                arguments["normalise"] = False
        plain = {"model_type": model.config.model_type, **model.config.to_diff_dict()}
        encoder = cls({key: value for key, value in plain.items() if key not in _DROPPED}, **arguments)
        encoder.model.load_state_dict(_encoder_of(model).state_dict())
        return encoder

    def output_frames(self, feature_frames: Mapping[str, int]) -> int:
        """One for every started hop."""
        return max(1, math.ceil(feature_frames[self.feature] / self._hop - 1e-9))

    def encode(self, features: Mapping[str, Tensor], wanted: Wanted) -> EncoderOutput:
        """See :class:`FrameEncoder`."""
        feature = features[self.feature]
        length = self.output_frames({self.feature: feature.shape[-1]})
        output = self.model(self._input(feature), output_hidden_states=True)
        last = output.last_hidden_state if self.layer is None else output.hidden_states[self.layer]
        frames = self._frames(last, length)
        states = {name: output.hidden_states[self.layers.index(name)] for name in wanted.embed}
        return EncoderOutput(frames, frames, {name: self._frames(state, length) for name, state in states.items()})

    def _input(self, feature: Tensor) -> Tensor:
        if self.longest is not None:
            spare = self.longest - feature.shape[-1]
            if spare < 0:
                raise InputError(f"this model hears {self.longest} feature frames at once; make clips shorter")
            feature = functional.pad(feature, (0, spare), value=self.padding)
        if self.layout == "mel_first":
            return feature
        if self.layout == "frames_first":
            return feature.transpose(1, 2)
        wave = feature[:, 0]
        if self.normalise:
            wave = (wave - wave.mean(dim=1, keepdim=True)) / (wave.var(dim=1, keepdim=True, correction=0) + 1e-7).sqrt()
        return functional.pad(wave, (0, max(0, self._shortest() - wave.shape[1])))

    def _shortest(self) -> int:
        """Samples without which no token comes out of the convolutions."""
        samples = 1
        for kernel, stride in zip(
            *(reversed(getattr(self.model.config, name, ())) for name in ("conv_kernel", "conv_stride"))
        ):
            samples = (samples - 1) * stride + kernel
        return samples

    def _frames(self, tokens: Tensor, length: int) -> Tensor:
        """``(batch, tokens, dim) -> (batch, length, dim)``."""
        columns = tokens[:, self.special_tokens :].unflatten(1, (self.bands, -1)).mean(dim=1)
        return self.grid.interpolate(columns, length)


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """A transformers model, or the encoder of one that also decodes, with random weights.

    Raises:
        InputError: see :class:`TransformersEncoder`.
    """
    auto_config, auto_model, _ = _transformers()
    given = {name: value for name, value in config.items() if name not in _DROPPED} | _OFF
    kind = given.pop("model_type", None)
    try:
        return _encoder_of(auto_model.from_config(auto_config.for_model(kind, **given), trust_remote_code=False))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"transformers builds no {kind!r} of this configuration: {' '.join(str(error).split())[:160]}"
        ) from error


def _encoder_of(model: Any) -> nn.Module:
    return model.get_encoder() if model.config.is_encoder_decoder else model


def _transformers() -> tuple[Any, Any, Any]:
    try:
        from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
    except ImportError as error:
        raise InputError(
            f"transformers cannot be imported ({error}); install it with pip install 'pmam-plugin[transformers]'"
        ) from error
    return AutoConfig, AutoModel, AutoFeatureExtractor


def _known_tokens(config: Any) -> dict[str, Any]:
    """How the tokens of a model lie in time, as far as its configuration says so."""
    if hasattr(config, "conv_stride") and hasattr(config, "conv_kernel"):
        stride = math.prod(config.conv_stride)
        return {"stride": stride, "special_tokens": 0, "bands": 1, "layout": "waveform"}
    if hasattr(config, "time_stride") and hasattr(config, "frequency_stride"):
        return {
            "stride": config.time_stride,
            "special_tokens": _SPECIAL_TOKENS,
            "bands": (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1,
            "layout": "frames_first",
            "longest": config.max_length,
            "padding": _AST_SILENCE,
            "heard": config.patch_size,
        }
    return {}
