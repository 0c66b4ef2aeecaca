import logging

from imgcls.config.load import feature_names


def test_linear_is_the_last_stage_with_one_log_line(caplog):
    with caplog.at_level(logging.INFO):
        assert feature_names(["mob3", "linear"], "MODEL.MNET.OUT_FEATURES") == ["mob3", "mob5"]
    assert len(caplog.records) == 1 and "MODEL.MNET.OUT_FEATURES" in caplog.text


def test_nothing_twice_and_nothing_said_without_it(caplog):
    assert feature_names(["mob5", "linear"], "KEY") == ["mob5"]
    caplog.clear()
    assert feature_names(["mob4", "mob5"], "KEY") == ["mob4", "mob5"]
    assert not caplog.records
