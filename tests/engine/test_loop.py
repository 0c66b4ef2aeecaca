"""The order of an iteration: what is due, what is saved before what, and that nothing trained is ever lost."""

import json
import os
import signal

import pytest
import torch
from detectron2.engine import HookBase

from imgcls.config import load_cfg
from imgcls.engine import PlainTrainer, Trainer, resolve_from_data
from imgcls.engine.loop import EVALUATE, SAVE, WRITE, Plan, build_plan
from imgcls.evaluation import ImageNetEvaluator

FINAL = "model_final.pth"


def plan(**changes):
    values = {"last": 9, "log_period": 4, "eval_period": 3, "save_period": 5, "evaluates": True} | changes
    return Plan(**values)


def test_an_evaluation_is_always_preceded_by_a_checkpoint():
    due = {iteration: plan().due(iteration) for iteration in range(10)}
    assert {i: d for i, d in due.items() if d} == {
        2: {EVALUATE, SAVE}, 3: {WRITE}, 4: {SAVE}, 5: {EVALUATE, SAVE}, 7: {WRITE}, 8: {EVALUATE, SAVE},
        9: {WRITE, EVALUATE, SAVE},
    }  # fmt: skip


def test_without_a_test_set_the_end_is_saved_once_as_model_final():
    assert plan(evaluates=False).due(9) == {WRITE}
    assert plan(eval_period=0, save_period=0, evaluates=False).due(2) == set()


def test_epochs_are_saved_and_evaluated_unless_a_period_is_given():
    def due(every_epoch, *opts):
        cfg = load_cfg("", ["DATASETS.TEST", "x", "SOLVER.LOG_PERIOD", 100, "SOLVER.CHECKPOINT_PERIOD", 4, *opts])
        done = {1: 1, 3: 2, 6: 3}  # epochs that are complete after an iteration
        plan = build_plan(cfg, 9, lambda iteration: done.get(iteration, 0), every_epoch)
        return {i: "".join(sorted(x[0] for x in plan.due(i))) for i in range(9) if plan.due(i)}

    assert due(False) == {3: "s", 7: "s"}
    assert due(True) == {1: "es", 3: "es", 6: "es", 7: "s"}
    assert due(True, "TEST.EVAL_PERIOD", 3) == {1: "s", 2: "es", 3: "s", 5: "es", 6: "s", 7: "s", 8: "es"}
    assert due(False, "TEST.EVAL_EPOCHS", 2) == due(False, "TEST.EVAL_EPOCHS", 2, "TEST.EVAL_PERIOD", 3)
    assert due(False, "TEST.EVAL_EPOCHS", 2) == {3: "es", 7: "s"}
    assert due(False, "SOLVER.CHECKPOINT_EPOCHS", 1) == {1: "s", 3: "s", 6: "s"}
    assert due(True, "SOLVER.CHECKPOINT_EPOCHS", 3, "TEST.EVAL_EPOCHS", 2) == {3: "es", 6: "s"}


@pytest.fixture
def cfg(tiny_cfg):
    """8 iterations, an evaluation after every third, with momentum, averaged weights and a line per iteration."""
    tiny_cfg.merge_from_list(
        ["SOLVER.MAX_ITER", "8", "SOLVER.LOG_PERIOD", "1", "SOLVER.EMA_DECAY", "0.9", "TEST.EVAL_PERIOD", "3"]
    )
    return tiny_cfg


def build(trainer, cfg, folder, resume=False):
    cfg.OUTPUT_DIR = str(folder)
    torch.manual_seed(cfg.SEED)  # as engine.setup does
    built = trainer(cfg, resolve_from_data(cfg))
    if trainer is Trainer:
        built.resume_or_load(resume=resume)
    else:
        built.load(resume=cfg.OUTPUT_DIR if resume else "")
    return built


def state(folder, name=FINAL):
    return torch.load(folder / name, weights_only=True)


def lines(folder):
    read = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "time" not in key and "eta" not in key} for line in read]


def same(one, other):
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


def assert_same_end(one, other):
    for key in ("model", "ema", "optimizer", "scheduler"):
        left, right = (torch.utils._pytree.tree_flatten(state(folder)[key])[0] for folder in (one, other))
        assert len(left) == len(right) and all(map(same, left, right)), key
    assert state(one)["best"] == state(other)["best"] and state(one)["iteration"] == state(other)["iteration"]
    assert lines(one) == lines(other)


@pytest.mark.parametrize("trainer", [Trainer, PlainTrainer])
@pytest.mark.parametrize("failing", [2, 7])
def test_an_evaluation_that_fails_costs_no_iteration(cfg, tmp_path, monkeypatch, trainer, failing):
    """Both in the middle and at the end, with a full disk in inference/."""
    build(trainer, cfg, tmp_path / "whole").train()
    real, calls = ImageNetEvaluator.evaluate, []

    def evaluate(self):
        calls.append(self)
        if len(calls) == 2 * failing // 3 + 1:  # weights and average are evaluated after iterations 2, 5 and 7
            raise OSError(28, "No space left on device")
        return real(self)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(ImageNetEvaluator, "evaluate", evaluate)
        build(trainer, cfg, tmp_path / "half").train()
    name = f"model_{failing:07d}.pth"
    assert (tmp_path / "half" / "last_checkpoint").read_text() == name
    assert state(tmp_path / "half", name)["pending"] == ["evaluate", "write"]
    resumed = build(trainer, cfg, tmp_path / "half", resume=True)
    assert resumed.run_state.first == failing + 1
    resumed.train()
    assert_same_end(tmp_path / "half", tmp_path / "whole")


def test_a_finished_run_has_nothing_left(cfg, tmp_path, caplog):
    build(Trainer, cfg, tmp_path / "run").train()
    before = (tmp_path / "run" / "metrics.json").read_bytes()
    caplog.set_level("INFO", "imgcls")
    build(Trainer, cfg, tmp_path / "run", resume=True).train()
    assert "nothing is left to train: this run ended at iteration 7" in caplog.text
    assert (tmp_path / "run" / "metrics.json").read_bytes() == before


def test_a_preempted_evaluation_is_left_to_the_resumed_run(cfg, tmp_path):
    """The signal arrives in the last iteration: the checkpoint is written, and the evaluation is still pending."""
    build(Trainer, cfg, tmp_path / "whole").train()
    trainer = build(Trainer, cfg, tmp_path / "half")

    class Signal(HookBase):
        def after_step(self):
            if self.trainer.iter == 7:
                os.kill(os.getpid(), signal.SIGUSR1)

    trainer.register_hooks([Signal()])
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(SystemExit) as left:
        trainer.train()
    signal.signal(signal.SIGUSR1, before)
    assert left.value.code == 75 and not (tmp_path / "half" / FINAL).exists()
    build(PlainTrainer, cfg, tmp_path / "half", resume=True).train()
    assert_same_end(tmp_path / "half", tmp_path / "whole")


def test_hooks_of_users_keep_working(cfg, tmp_path):
    calls = []

    class Hook(HookBase):
        def before_train(self):
            calls.append("before_train")

        def before_step(self):
            calls.append(("before", self.trainer.iter))

        def after_step(self):
            calls.append(("after", self.trainer.iter))
            self.trainer.storage.put_scalar("mine", self.trainer.iter, smoothing_hint=False)

        def after_train(self):
            calls.append("after_train")

    trainer = build(Trainer, cfg, tmp_path / "run")
    trainer.register_hooks([Hook()])
    trainer.train()
    steps = [(when, number) for number in range(8) for when in ("before", "after")]
    assert calls == ["before_train", *steps, "after_train"]
    assert [line["mine"] for line in lines(tmp_path / "run")] == list(range(8))


@pytest.mark.parametrize("trainer", [Trainer, PlainTrainer])
def test_what_one_trainer_honours_the_other_does(cfg, tmp_path, trainer, caplog):
    """REFERENCE_WORLD_SIZE, PRECISE_BN and EXPECTED_RESULTS."""
    cfg.SOLVER.REFERENCE_WORLD_SIZE, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER = 2, 8, 2
    cfg.TEST.PRECISE_BN.ENABLED, cfg.TEST.PRECISE_BN.NUM_ITER = True, 1
    cfg.TEST.EXPECTED_RESULTS = [["accuracy", "top1", 50.0, 51.0]]
    built = build(trainer, cfg, tmp_path / "run")
    assert built.cfg.SOLVER.IMS_PER_BATCH == 4 and built.cfg.SOLVER.MAX_ITER == 4
    caplog.set_level("INFO")
    built.train()
    assert "Results verification passed" in caplog.text
    tracked = [int(v) for k, v in state(tmp_path / "run")["model"].items() if k.endswith("num_batches_tracked")]
    assert set(tracked) == {5}  # 4 iterations and, before the evaluation, one precise batch


def test_both_trainers_have_the_same_precise_statistics(cfg, tmp_path):
    cfg.TEST.PRECISE_BN.ENABLED, cfg.TEST.PRECISE_BN.NUM_ITER = True, 2
    for trainer in (Trainer, PlainTrainer):
        build(trainer, cfg, tmp_path / trainer.__name__).train()
    one, other = (state(tmp_path / trainer.__name__)["model"] for trainer in (Trainer, PlainTrainer))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_checkpoint_of_another_folder_does_not_shorten_the_lines_of_this_one(cfg, tmp_path):
    """`train_net.py --resume OTHER/x.pth OUTPUT_DIR mine` once cut mine/metrics.json to the length of the other."""
    build(PlainTrainer, cfg, tmp_path / "other").train()
    cfg.SOLVER.MAX_ITER = 20
    build(PlainTrainer, cfg, tmp_path / "mine").train()
    before = (tmp_path / "mine" / "metrics.json").read_text()
    cfg.SOLVER.MAX_ITER = 9
    trainer = PlainTrainer(cfg)
    trainer.load(resume=str(tmp_path / "other" / FINAL))
    trainer.train()
    assert (tmp_path / "mine" / "metrics.json").read_text().startswith(before)


@pytest.mark.parametrize("trainer", [Trainer, PlainTrainer])
def test_resuming_an_empty_folder_starts_a_new_run(cfg, tmp_path, trainer):
    """A requeued job always passes --resume, also when it was preempted before its first checkpoint."""
    cfg.SOLVER.MAX_ITER = 2
    (tmp_path / "new").mkdir()
    built = build(trainer, cfg, tmp_path / "new", resume=True)
    assert built.run_state.first == 0
    built.train()
    assert (tmp_path / "new" / FINAL).is_file()
