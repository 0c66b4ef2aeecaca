import numpy as np

from imgcls.inference import Prediction
from imgcls.inference.draw import describe, draw_boxes, draw_caption

BLACK = np.zeros((300, 400, 3), np.uint8)


def test_a_caption_lies_below_the_image():
    drawn = np.asarray(draw_caption(BLACK, ["cat  0.98", "dög  0.01"]))
    assert (drawn[:300] == 0).all() and drawn.shape[0] > 330 and drawn.shape[1] == 400
    below = drawn[300:]
    assert (below == 255).mean() > 0.8 and (below < 128).any()
    other = np.asarray(draw_caption(BLACK, ["dog  0.98", "dög  0.01"]))
    assert not np.array_equal(other[300:], below)


def test_large_images_are_shrunk_and_small_ones_get_room_for_the_text():
    assert draw_caption(np.zeros((2000, 1000, 3), np.uint8), ["x"]).width == 320
    small = draw_caption(np.zeros((10, 10, 3), np.uint8), ["x"])
    assert small.width == 240 and np.asarray(small)[5, 120].tolist() == [0, 0, 0]


def test_boxes_have_the_colour_of_their_kind():
    drawn = np.asarray(draw_boxes(BLACK, [[50, 100, 80, 60], [200, 100, 80, 60], [300, 100, 80, 60]], "abc", [0, 1, 0]))
    assert drawn.shape == BLACK.shape
    first, second, third = (tuple(drawn[130, x]) for x in (50, 200, 300))
    assert first == third != second and first != (0, 0, 0)
    assert tuple(drawn[130, 90]) == (0, 0, 0) and (drawn[70:100, 50:70] != 0).any()


def test_classes_above_their_thresholds_are_marked():
    assert describe(Prediction("x", ["cat", "dog"], [0.9, 0.1], ["cat"])) == ["cat *  0.900", "dog  0.100"]
