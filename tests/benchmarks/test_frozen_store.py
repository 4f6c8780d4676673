import importlib.util

import pytest

from tests.checkpoints.test_yamnet import write_keras
from tests.recipes.tiny import tiny_corpus
from tests.support import ROOT


def test_stored_embeddings_are_the_faster_way(tmp_path, capsys):
    pytest.importorskip("h5py", reason="h5py is not installed")
    write_keras(tmp_path)
    spec = importlib.util.spec_from_file_location("frozen_store", ROOT / "benchmarks" / "frozen_store.py")
    frozen_store = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(frozen_store)
    data = ["--data_folder", str(tiny_corpus(tmp_path / "corpus")), "--threads", "1"]
    frozen_store.main([*data, "--encoder_checkpoint", str(tmp_path / "yamnet.h5"), "--updates", "2"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert [row[0] for row in rows] == ["features", "embeddings"]
    assert float(rows[1][2]) < float(rows[0][2])
