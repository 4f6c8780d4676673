import pytest

from benchmarks import frozen_store
from tests.checkpoints.test_yamnet import write_keras
from tests.recipes.tiny import tiny_corpus


def test_stored_embeddings_are_the_faster_way(tmp_path, capsys):
    pytest.importorskip("h5py", reason="h5py is not installed")
    write_keras(tmp_path)
    data = ["--data_folder", str(tiny_corpus(tmp_path / "corpus")), "--threads", "1"]
    frozen_store.main([*data, "--encoder_checkpoint", str(tmp_path / "yamnet.h5"), "--updates", "2"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert [row[0] for row in rows] == ["features", "embeddings"]
    assert float(rows[1][2]) < float(rows[0][2])
