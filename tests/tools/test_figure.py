"""Labels and fonts, with fonts made for the test: which ones are installed differs from machine to machine."""

import pytest
from figure import new_figure, save
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

CAT = "\u732b"


@pytest.fixture
def only_default_fonts(monkeypatch):
    """The fonts that matplotlib brings, without those of the machine."""
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [entry for entry in manager.ttflist if "matplotlib" in entry.fname])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])


@pytest.fixture
def cat_font(only_default_fonts, tmp_path, monkeypatch):
    """A font with one character that was installed after matplotlib wrote its list of fonts."""
    pen = TTGlyphPen(None)
    for point, draw in (((0, 0), pen.moveTo), ((0, 900), pen.lineTo), ((900, 0), pen.lineTo)):
        draw(point)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord(CAT): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Cat Sans", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "cat.ttf")
    (tmp_path / "damaged.ttf").write_text("not a font")
    paths = [str(tmp_path / name) for name in ("damaged.ttf", "cat.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: paths)


@pytest.mark.filterwarnings("error")
def test_an_installed_font_draws_what_the_default_font_lacks(cat_font, tmp_path):
    figure = new_figure(2, 2)
    axes = figure.subplots()
    axes.set_yticks([0, 1], [f"{CAT} (3)", "dog"])
    save(figure, tmp_path / "figure.png")
    assert axes.get_yticklabels()[0].get_fontfamily()[-1] == "Cat Sans"
    assert axes.get_yticklabels()[0].get_text() == f"{CAT} (3)"


@pytest.mark.filterwarnings("error")
def test_a_character_without_a_font_becomes_a_question_mark(only_default_fonts, tmp_path):
    figure = new_figure(2, 2)
    figure.suptitle(f"set {CAT} \udce9")
    save(figure, tmp_path / "figure.png")
    assert figure.get_suptitle() == "set ? \ufffd"
