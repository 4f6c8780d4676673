# ruff: noqa: E501 (a row a line, sentences as the user reads them)
# fmt: off
"""Checkpoints and model folders that are refused: reader, file, content, sentence."""

import functools
import io
import json
import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pmam_plugin.checkpoints import save_model
from pmam_plugin.encoders import ATSTFrame
from pmam_plugin.files import read_json, write_json
from pmam_plugin.postprocessing import PostProcessing, Scoring
from tests.checkpoints.beats_files import SMALL, prefixed, published_tensors
from tests.checkpoints.sedt_reference import Layout
from tests.checkpoints.test_atst import sed_tensors
from tests.checkpoints.test_beats import changed as beats
from tests.checkpoints.test_pretrained_sed import strong
from tests.official_passt import OfficialPaSST
from tests.tiny_models import LABELS, tiny_detector

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
CONFIG = {"format_version": 1, "architecture": "X", "model": {"type": "X"}}


def zipped(path: Path, name: str) -> None:
    """A zip archive that holds an empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "")


def model(change=lambda tensors: None, weights=slice(None), **settings):
    """A detector's folder with other settings (a double underscore goes one level down, ``...`` removes), tensors, or
    bytes of its weights."""

    def write(path: Path) -> None:
        folder = save_model(path.parent, tiny_detector(), Scoring(PostProcessing("soft", 0.2)), {"seed": 3})
        config = read_json(path)
        for place, value in settings.items():
            *above, last = place.split("__")
            node = config
            for name in above:
                node = node[name]
            node[last] = value
        write_json(path, {name: value for name, value in config.items() if value is not ...})
        file = folder / "model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)
        if weights is None:
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[weights] if isinstance(weights, slice) else weights)

    return write


def relabelled(first):
    """Settings that give the first class another name."""
    labels = [first, *LABELS[1:]]
    return {"labels": labels, "model__labels": labels}


def checkpoint() -> bytes:
    """A whole file of torch.save."""
    file = io.BytesIO()
    torch.save({"a": torch.ones(1000)}, file)
    return file.getvalue()


def edited(tensors, *dropped, **others):
    """A copy without some tensors and with others."""
    return {name: tensor for name, tensor in {**tensors, **others}.items() if name not in dropped}


def passt():
    """A small PaSST as published."""
    return OfficialPaSST(depth=1, dim=64, heads=1).state_dict()


def atst():
    """A small ATST-Frame as published."""
    return ATSTFrame(dim=128, depth=2, heads=2).state_dict()


@functools.cache
def sedt():
    """A small SEDT as published."""
    return Layout().sedt()


def keras(change):
    """YAMNet's Keras file and class map, changed."""

    def write(path: Path) -> None:
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        from tests.checkpoints.test_yamnet import write_keras

        write_keras(path.parent)
        with h5py.File(path, "a") as file:
            change(file)

    return write


WEIGHTS = [
    ("weights", "x.pt", None, "{}/x.pt: no such file; download the checkpoint first"),
    ("weights", ".", None, "{}: is a folder; name the checkpoint file inside it"),
    ("weights", "x.pt", b"", "{}/x.pt: the file is empty (0 bytes); download it again"),
    ("weights", "x.pt", LFS, "{}/x.pt: is a pointer of Git LFS, not weights; fetch the file itself with git lfs pull"),
    ("weights", "x.safetensors", LFS, "{}/x.safetensors: is a pointer of Git LFS, not weights; fetch the file itself with git lfs pull"),
    ("weights", "x.pt", b"<!DOCTYPE html><html>", "{}/x.pt: is a web page, not weights; download the file itself, not the page about it"),
    ("weights", "x.pt", b"Access denied\n", "{}/x.pt: is a text file that begins with 'Access denied', not weights; download it again"),
    ("weights", "x.pt", b"\x1f\x8b\x08" + bytes(600), "{}/x.pt: is an archive, not weights; unpack it"),
    ("weights", "x.pt", torch.ones(2), "{}/x.pt: holds Tensor, not a dictionary of tensors; give another file"),
    ("weights", "x.pt", [1], "{}/x.pt: holds list, not a dictionary of tensors; give another file"),
    ("weights", "x.pt", {"a": struct.Struct}, "{}/x.pt: its pickle names _struct.Struct, which is no data and is not run; export the tensors alone"),
    ("weights", "x.h5", b"\x89HDF\r\n\x1a\n" + bytes(600), "{}/x.h5: is an HDF5 file, as Keras writes them; of these only YAMNet's is read, with --kind yamnet"),
    ("weights", "x.pt", b"RIFF" + bytes(600), "{}/x.pt: is a recording, not weights; give another file"),
    ("weights", "x.npy", b"\x93NUMPY" + bytes(600), "{}/x.npy: is an array of NumPy, not weights; give another file"),
    ("weights", "x.pt", bytes(600), "{}/x.pt: is nothing but zeros where it begins; download it again"),
    ("weights", "x.pt", lambda path: zipped(path, "model.pt"), "{}/x.pt: is a zip archive that holds model.pt; unpack it and name the checkpoint inside"),
    ("weights", "x.pt", lambda path: zipped(path, "x/constants.pkl"), "{}/x.pt: is a program in TorchScript, which is not run; export its state_dict"),
    ("weights", "x.keras", lambda path: zipped(path, "model.weights.h5"), "{}/x.keras: is a model of Keras 3; give the weights as the authors published them"),
    ("weights", "x.safetensors", b"", "{}/x.safetensors: the file is empty (0 bytes); download it again"),
    ("weights", "x.safetensors", b"\xff" * 64, "{}/x.safetensors: not a whole safetensors file (...); download it again"),
    ("model", "m/notes.md", "x", "{}/m: holds no config.json, so it is no model folder; give a folder that training or pmam import-checkpoint wrote"),
    ("model", "m/notes.md", lambda path: zipped(path.parent / "1" / "model" / "config.json", "x"), "{}/m: holds no config.json, so it is no model folder; give {}/m/1/model inside it"),
    ("folder", "m.md", "x", "{}/m.md: is a file, not a model folder; give a folder that training or pmam import-checkpoint wrote"),
    ("folder", "m.pt", {}, "{}/m.pt: is a file of weights, not a model folder; give a folder that training or pmam import-checkpoint wrote"),
    ("folder", "m.zip", lambda path: zipped(path, "m/config.json"), "{}/m.zip: is an archive, not a model folder; unpack it and give the folder inside"),
    ("folder", "m", lambda path: path.symlink_to("nowhere"), "{}/m: is a link that leads nowhere; check what it should lead to"),
    ("model", "m/config.json", "[" * 100_000, "{}/m/config.json: not valid JSON (...); correct it, or copy it again"),
    ("model", "m/config.json", "{", "{}/m/config.json: not valid JSON (...); correct it, or copy it again"),
    ("model", "m/config.json", "[]", "{}/m/config.json: not the configuration of a model of this package (it needs a 'model' with a 'type'); give a folder that training or pmam import-checkpoint wrote"),
    ("model", "m/config.json", json.dumps(CONFIG | {"format_version": 99}), "{}/m/config.json: format_version 99 is not 1, the one known here; update pmam_plugin"),
    ("model", "m/config.json", json.dumps(CONFIG), "{}/m/config.json: the configuration names an unknown architecture 'X'; update pmam_plugin or check config.json"),
    ("model", "m/config.json", json.dumps(CONFIG | {"model": {"type": "os.system"}}), "{}/m/config.json: architecture is 'X' but the model is 'os.system'; fetch the folder again"),
]
MODELS = [
    ("model", "m/config.json", model(format_version=2), "{}/m/config.json: format_version 2 is not 1, the one known here; update pmam_plugin"),
    ("model", "m/config.json", model(format_version=...), "{}/m/config.json: format_version None is not 1, the one known here; update pmam_plugin"),
    ("model", "m/config.json", model(model=...), "{}/m/config.json: not the configuration of a model of this package (it needs a 'model' with a 'type'); give a folder that training or pmam import-checkpoint wrote"),
    ("model", "m/config.json", model(model="FrameDetector"), "{}/m/config.json: not the configuration of a model of this package (it needs a 'model' with a 'type'); give a folder that training or pmam import-checkpoint wrote"),
    ("model", "m/config.json", model(model={"type": "Nonsense"}, architecture="Nonsense"), "{}/m/config.json: the configuration names an unknown architecture 'Nonsense'; update pmam_plugin or check config.json"),
    ("model", "m/config.json", model(model={"type": "os.system"}, architecture="os.system"), "{}/m/config.json: the configuration names an unknown architecture 'os.system'; update pmam_plugin or check config.json"),
    ("model", "m/config.json", model(model={"type": ["FrameDetector"]}, architecture=["FrameDetector"]), "{}/m/config.json: the configuration names an unknown architecture ['FrameDetector']; update pmam_plugin or check config.json"),
    ("model", "m/config.json", model(model={"type": "FrameDetector", "depth": 3}), "{}/m/config.json: the configuration of FrameDetector does not fit this version (...); update pmam_plugin"),
    ("model", "m/config.json", model(model={"type": "RecurrentContext", "input_dim": -1}, architecture="RecurrentContext"), "{}/m/config.json: the model it describes cannot be built (...); fetch the folder again"),
    ("model", "m/config.json", model(model={"type": "PostProcessing"}, architecture="PostProcessing"), "{}/m/config.json: PostProcessing is not a model; fetch the folder again"),
    ("model", "m/config.json", model(architecture="SEDT"), "{}/m/config.json: architecture is 'SEDT' but the model is 'FrameDetector'; fetch the folder again"),
    ("model", "m/config.json", model(labels=["bell", "dog", "cat"]), "{}/m/config.json: labels is ['bell', 'dog', 'cat'] but the model has ['bell', 'dog', 'speech']; fetch the folder again"),
    ("model", "m/config.json", model(sample_rate=8000), "{}/m/config.json: sample_rate is 8000 but the model has 16000; fetch the folder again"),
    ("model", "m/config.json", model(postprocessing={"type": "PostProcessing", "weak_mask": "odd"}), "{}/m/config.json: post-processing: weak_mask must be one of none, soft, hard, not 'odd'"),
    ("model", "m/config.json", model(options={"nonsense": 1}), "{}/m/config.json: options may name windows and temperature only, not {'nonsense': 1}; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(options=[1]), "{}/m/config.json: options may name windows and temperature only, not [1]; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(options={"temperature": 0}), "{}/m/config.json: options: temperature is 0, not a number above 0; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(options={"temperature": "hot"}), "{}/m/config.json: options: temperature is 'hot', not a number above 0; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(options={"windows": 3}), "{}/m/config.json: options: windows is 3, not Windows; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(postprocessing={"type": "LogMel", "n_mels": 16}), "{}/m/config.json: postprocessing is LogMel, which makes no events of scores; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(postprocessing={"threshold": 0.5}), "{}/m/config.json: postprocessing is dict, which makes no events of scores; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(postprocessing__threshold="high"), "{}/m/config.json: post-processing: threshold must be a number, or one per class, not 'high'"),
    ("model", "m/config.json", model(postprocessing__threshold={"bell": 0.5}), "{}/m/config.json: postprocessing has no threshold for dog, speech; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(postprocessing__median_seconds={"bell": 0.5}), "{}/m/config.json: postprocessing has no median_seconds for dog, speech; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(postprocessing__median_seconds=1e9), "{}/m/config.json: post-processing: median_seconds must be within 0 and 600 s"),
    ("model", "m/config.json", model(provenance="somewhere"), "{}/m/config.json: provenance is 'somewhere', not a mapping; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(clip_seconds=0, model__clip_seconds=0), "{}/m/config.json: clip_seconds is 0, not within 0 and 3600 s; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(clip_seconds=-1.0, model__clip_seconds=-1.0), "{}/m/config.json: clip_seconds is -1.0, not within 0 and 3600 s; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(clip_seconds=1e9, model__clip_seconds=1e9), "{}/m/config.json: clip_seconds is 1000000000.0, not within 0 and 3600 s; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(**relabelled("a\tb")), "{}/m/config.json: 'a\\tb' cannot be the name of a class; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(**relabelled("onset")), "{}/m/config.json: 'onset' cannot be the name of a class; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(**relabelled(" ")), "{}/m/config.json: ' ' cannot be the name of a class; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(**relabelled(7)), "{}/m/config.json: 7 cannot be the name of a class; fetch the folder again, or correct it"),
    ("model", "m/config.json", model(model__backbone__encoder=None), "{}/m/config.json: the model it describes cannot be built (...); fetch the folder again"),
    ("model", "m/config.json", model(model__head={"type": "PostProcessing"}), "{}/m/config.json: the model it describes cannot be built (...); fetch the folder again"),
    ("model", "m/config.json", model(lambda t: t.pop("head.classifier.bias")), "{}/m/model.safetensors: lacks head.classifier.bias of FrameDetector; give another file"),
    ("model", "m/config.json", model(lambda t: [t.pop(name) for name in list(t)[:9]]), "{}/m/model.safetensors: lacks backbone.encoder.stack.stages.0.norm.num_batches_tracked (and 8 more) of FrameDetector; give another file"),
    ("model", "m/config.json", model(lambda t: t.update(extra=torch.ones(2))), "{}/m/model.safetensors: extra does not belong to FrameDetector; give another file"),
    ("model", "m/config.json", model(lambda t: t.update({"head.classifier.bias": torch.ones(4)})), "{}/m/model.safetensors: head.classifier.bias is float32 of shape (4,), FrameDetector needs float32 of shape (3,); give another file, or build the model in its size"),
    ("model", "m/config.json", model(lambda t: t.update({"head.classifier.bias": torch.ones(3, dtype=torch.int32)})), "{}/m/model.safetensors: head.classifier.bias is int32 of shape (3,), FrameDetector needs float32 of shape (3,); give another file, or build the model in its size"),
    ("model", "m/config.json", model(lambda t: t["head.classifier.bias"].fill_(torch.inf)), "{}/m/model.safetensors: head.classifier.bias holds NaN or infinite values; fetch or train the model again"),
    ("model", "m/config.json", model(weights=None), "{}/m/model.safetensors: no such file; download it again"),
    ("model", "m/config.json", model(weights=b""), "{}/m/model.safetensors: the file is empty (0 bytes); download it again"),
    ("model", "m/config.json", model(weights=slice(0, 4)), "{}/m/model.safetensors: not a whole safetensors file (...); download it again"),
    ("model", "m/config.json", model(weights=slice(0, 100)), "{}/m/model.safetensors: not a whole safetensors file (...); download it again"),
    ("model", "m/config.json", model(weights=slice(0, -10)), "{}/m/model.safetensors: not a whole safetensors file (...); download it again"),
    ("model", "m/config.json", b"", "{}/m/config.json: not valid JSON (...); correct it, or copy it again"),
    ("model", "m/config.json", b"\xff\xfe", "{}/m/config.json: not valid JSON (...); correct it, or copy it again"),
    ("model", "m/config.json", lambda path: save_model(path.parent, ATSTFrame(dim=16, depth=1, heads=2)), "{}/m/config.json: holds ATSTFrame, which is a part of a model and detects nothing alone; give a detector's folder"),
]
IMPORTS = [
    ("weights", "x.pt", lambda path: path.write_bytes(checkpoint()[:200]), "{}/x.pt: not a whole PyTorch checkpoint (...); download it again"),
    ("weights", "x.pt", lambda path: path.write_bytes(checkpoint()[:-50]), "{}/x.pt: not a whole PyTorch checkpoint (...); download it again"),
    ("weights", "x.pt", b"\x80\x02", "{}/x.pt: not a whole PyTorch checkpoint (...); download it again"),
    ("passt", "x.pt", {"weight": torch.ones(3)}, "{}/x.pt: holds no PaSST (no cls_token and time_new_pos_embed); choose another --kind"),
    ("passt", "x.pt", lambda path: torch.save(edited(passt(), "norm.weight"), path), "{}/x.pt: lacks norm.weight of PaSST; give another file"),
    ("passt", "x.pt", lambda path: torch.save(edited(passt(), "norm.bias", extra=torch.ones(1)), path), "{}/x.pt: lacks norm.bias of PaSST; extra does not belong to PaSST; give another file"),
    ("atst-frame", "x.pt", {"weight": torch.ones(2)}, "{}/x.pt: holds no ATST-Frame encoder (no pos_embed); choose another --kind"),
    ("atst-frame", "x.pt", {"state_dict": 3}, "{}/x.pt: its state_dict is not a dictionary of tensors; give another file"),
    ("atst-frame", "x.pt", {}, "{}/x.pt: holds no ATST-Frame encoder (no pos_embed); choose another --kind"),
    ("atst-frame", "x.pt", {"pos_embed": torch.ones(2)}, "{}/x.pt: not an ATST-Frame encoder (no usable position or patch embedding); give another file"),
    ("atst-frame", "x.pt", lambda path: torch.save(edited(atst(), "mask_embed"), path), "{}/x.pt: lacks mask_embed of ATSTFrame; give another file"),
    ("atst-frame", "x.pt", lambda path: torch.save(edited(atst(), surprise=torch.ones(1)), path), "{}/x.pt: surprise does not belong to ATSTFrame; give another file"),
    ("atst-frame into a narrower one", "x.pt", lambda path: torch.save(atst(), path), "{}/x.pt: mask_embed (and 27 more) is float32 of shape (1, 1, 128), ATSTFrame needs float32 of shape (1, 1, 64); give another file, or build the model in its size"),
    ("atst-frame into a deeper one", "x.pt", lambda path: torch.save(atst(), path), "{}/x.pt: lacks blocks.2.norm1.weight (and 10 more) of ATSTFrame; give another file"),
    ("atst-sed", "x.pt", lambda path: torch.save(edited(sed_tensors(), "cat_tf.weight"), path), "{}/x.pt: holds no ATST-SED model (no cat_tf.weight); choose another --kind"),
    ("atst-sed", "x.pt", lambda path: torch.save(edited(sed_tensors(), "rnn.rnn.bias_hh_l0"), path), "{}/x.pt: lacks backbone.context.gru.bias_hh_l0 of FrameDetector; give another file"),
    ("atst-sed", "x.pt", lambda path: torch.save(edited(sed_tensors(), **{"proj.0.weight": torch.ones(2)}), path), "{}/x.pt: proj.0.weight does not belong to FrameDetector; give another file"),
    ("atst-sed", "x.pt", lambda path: torch.save(edited(sed_tensors(), **{"rnn.rnn.bias_hh_l0": torch.ones(5)}), path), "{}/x.pt: backbone.context.gru.bias_hh_l0 is float32 of shape (5,), FrameDetector needs float32 of shape (384,); give another file, or build the model in its size"),
    ("beats", "x.pt", None, "{}/x.pt: no such file; download it from https://github.com/microsoft/unilm/tree/master/beats first"),
    ("beats", "x.pt", beats({"layer_norm_first": True}), "{}/x.pt: is a BEATs with layer_norm_first=True, which no published one has; give another file"),
    ("beats", "x.pt", beats(drop=["encoder.layers.1.fc1.bias"]), "{}/x.pt: lacks blocks.1.mlp.fc1.bias of BEATs; give another file"),
    ("beats", "x.pt", beats(drop=["encoder.layers.1.self_attn.k_proj.bias"]), "{}/x.pt: lacks encoder.layers.1.self_attn.k_proj.bias of BEATs; give another file"),
    ("beats", "x.pt", beats(drop=["post_extract_proj.weight"]), "{}/x.pt: lacks a part of BEATs ('patch_projection.weight'); give another file"),
    ("beats", "x.pt", beats(surprise=torch.ones(2)), "{}/x.pt: surprise does not belong to BEATs; give another file"),
    ("beats", "x.pt", beats(**{"encoder.layers.1.self_attn.relative_attention_bias.weight": torch.ones(320, 2)}), "{}/x.pt: encoder.layers.0.self_attn.relative_attention_bias.weight differs between layers, which share it in BEATs; give another file"),
    ("beats", "x.pt", beats(**{"encoder.layers.1.fc1.weight": torch.ones(3, 3)}), "{}/x.pt: blocks.1.mlp.fc1.weight is float32 of shape (3, 3), BEATs needs float32 of shape (128, 32); give another file, or build the model in its size"),
    ("beats", "x.pt", {**prefixed("model.beats.", published_tensors(**SMALL)), "other.weight": torch.ones(1)}, "{}/x.pt: other.weight does not belong to BEATs; give another file"),
    ("beats", "x.pt", {"weight": torch.ones(2)}, "{}/x.pt: holds no BEATs encoder (no patch_embedding.weight); choose another --kind"),
    ("beats", "x.pt", {"model": 3}, "{}/x.pt: holds no BEATs encoder (no patch_embedding.weight); choose another --kind"),
    ("pretrained-sed", "x.pt", lambda path: torch.save(strong("frame_mn", ["7.block.1.1.running_var"]), path), "{}/x.pt: lacks backbone.encoder.features.7.block.1.1.running_var of FrameDetector; give another file"),
    ("pretrained-sed", "x.pt", lambda path: torch.save(strong("fPaSST", ["blocks.0.attn.qkv.bias"]), path), "{}/x.pt: lacks backbone.encoder.transformer.blocks.0.attn.qkv.bias of FrameDetector; give another file"),
    ("pretrained-sed", "x.pt", lambda path: torch.save(strong("BEATs", ["layers.1.fc1.bias"]), path), "{}/x.pt: lacks backbone.encoder.transformer.blocks.1.mlp.fc1.bias of FrameDetector; give another file"),
    ("pretrained-sed", "x.pt", lambda path: torch.save(strong("ATST-Frame", surprise=torch.ones(1)), path), "{}/x.pt: surprise does not belong to ATST-Frame; give another file"),
    ("pretrained-sed", "x.pt", lambda path: torch.save(strong("frame_mn", ["features.16.1.bias"]), path), "{}/x.pt: a frame_mn with 0 outputs is none of the published; give another file"),
    ("pretrained-sed", "x.pt", lambda path: torch.save(strong("frame_mn", **{"strong_head.weight": torch.ones(10, 384)}), path), "{}/x.pt: 10 classes but 447 labels; name them all, in order"),
    ("pretrained-sed", "x.pt", {"model.asit.patch_embed.proj.weight": torch.ones(1)}, "{}/x.pt: is PretrainedSED's ASiT, which has no encoder here; give one of BEATs, ATST-Frame, fPaSST, frame_mn, or choose another --kind"),
    ("pretrained-sed", "x.pt", {"model.backbone.patch_embed.proj.weight": torch.ones(1)}, "{}/x.pt: is PretrainedSED's M2D, which has no encoder here; give one of BEATs, ATST-Frame, fPaSST, frame_mn, or choose another --kind"),
    ("pretrained-sed", "x.pt", {"weight": torch.ones(1)}, "{}/x.pt: is none of PretrainedSED's files; give one of BEATs, ATST-Frame, fPaSST, frame_mn, or choose another --kind"),
    ("fPaSST into ATST-Frame", "x.pt", lambda path: torch.save(strong("fPaSST"), path), "{}/x.pt: holds fPaSST, which does not fit ATSTFrame; give another file"),
    ("sedt", "x.pt", {"linear.weight": torch.zeros(2)}, "{}/x.pt: holds no SEDT (its ResNet is missing); give a checkpoint of the reference"),
    ("sedt", "x.pt", lambda path: torch.save(Layout().sp_sedt(), path), "{}/x.pt: is an SP-SEDT pre-training checkpoint; give a fine-tuned SEDT (it has weak_class_embed)"),
    ("sedt", "x.pt", lambda path: torch.save(edited(sedt(), "bbox_embed.layers.1.bias"), path), "{}/x.pt: lacks network.interval_head.layers.2.bias of SEDT; give another file"),
    ("sedt", "x.pt", lambda path: torch.save(edited(sedt(), "query_embed.weight"), path), "{}/x.pt: lacks query_embed.weight; give a whole checkpoint of the reference"),
    ("sedt", "x.pt", lambda path: torch.save(edited(sedt(), "transformer.encoder.layers.0.linear1.weight"), path), "{}/x.pt: lacks transformer.encoder.layers.0.linear1.weight; give a whole checkpoint of the reference"),
    ("sedt", "x.pt", lambda path: torch.save(edited(sedt(), **{"stranger.weight": torch.zeros(1)}), path), "{}/x.pt: stranger.weight does not belong to SEDT; give another file"),
    ("sedt", "x.pt", lambda path: torch.save({name: t for name, t in sedt().items() if ".layer3.1." not in name}, path), "{}/x.pt: has a ResNet with (2, 2, 1, 2) blocks, not one of resnet18, resnet34, resnet50, resnet101; give another file"),
    ("sedt of two classes", "x.pt", lambda path: torch.save(sedt(), path), "{}/x.pt: 3 classes but 2 labels; name them all, in order"),
    ("sedt's teacher", "x.pt", lambda path: torch.save({"model": sedt()}, path), "{}/x.pt: holds no ema_model; import it without the teacher option"),
    ("sp-sedt", "x.pt", lambda path: torch.save(sedt(), path), "{}/x.pt: is no SP-SEDT pre-training checkpoint (it lacks patch2query); give another file"),
    ("sedt's tagger", "x.pt", lambda path: torch.save(sedt(), path), "{}/x.pt: is no audio-tagging checkpoint (it lacks weak_label); give another file"),
    ("sedt's statistics", "x.json", None, "{}/x.json: no such file; check the path"),
    ("sedt's statistics", "x.json", '{"mean_": [0.0]}', "{}/x.json: needs lists mean_ and mean_of_square_ of one number per mel band; give the file of the training"),
    ("yamnet", "yamnet.h5", None, "{}/yamnet.h5: no such file; download it from https://storage.googleapis.com/audioset/yamnet.h5"),
    ("yamnet", "yamnet.h5", "no weights", "{}/yamnet.h5: is a text file that begins with 'no weights', not weights; download it again"),
    ("yamnet", "yamnet.h5", keras(lambda file: file["layer5/depthwise_conv"].__delitem__("layer5/depthwise_conv/depthwise_kernel:0")), "{}/yamnet.h5: not a whole Keras weights file (...); download it again"),
    ("yamnet", "yamnet.h5", keras(lambda file: file.attrs.__setitem__("layer_names", [name for name in file.attrs["layer_names"] if "layer5" not in str(name)])), "{}/yamnet.h5: lacks layer5/depthwise_conv/depthwise_kernel of YAMNet; give the published yamnet.h5"),
    ("yamnet's classes", "yamnet.h5", keras(lambda file: os.remove(Path(file.filename).with_name("yamnet_class_map.csv"))), "{}/yamnet_class_map.csv: no such file; the names of the classes stand in it, download it to where yamnet.h5 is"),
    ("yamnet's classes", "yamnet.h5", keras(lambda file: Path(file.filename).with_name("yamnet_class_map.csv").write_text("a,b\n1,2\n")), "{}/yamnet_class_map.csv, line 1: the column 'index' is missing; the header must name index, display_name, and it names a,b"),
    ("yamnet of two classes", "yamnet.h5", keras(lambda file: None), "{}/yamnet.h5: 521 classes but 2 labels; name them all, in order"),
]
