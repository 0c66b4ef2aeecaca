import pytest
import torch

from imgcls.checkpoint import ClsCheckpointer, build_info, saved_seed


def test_the_seed_of_the_run_in_a_folder(tiny_cfg, tmp_path):
    tiny_cfg.merge_from_list(["SEED", 41, "OUTPUT_DIR", str(tmp_path)])
    assert saved_seed(str(tmp_path)) == saved_seed(str(tmp_path / "gone")) == -1
    ClsCheckpointer(torch.nn.Linear(2, 2), str(tmp_path), info=build_info(tiny_cfg)).save("model_0000001")
    assert saved_seed(str(tmp_path)) == 41


def test_a_checkpoint_of_detectron2_does_not_tell(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    assert saved_seed(str(tmp_path)) == -1
    (tmp_path / "model_final.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="no checkpoint can be read"):
        saved_seed(str(tmp_path))
