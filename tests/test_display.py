"""What notebooks show: models and histories as HTML and PNG, on light and dark pages; progress as plain lines."""

import ast
import base64
import html.parser
import importlib.util
import io
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl as keras
from minidl import display
from minidl.callbacks import History

ROOT = Path(__file__).parents[1]


def make_model():
    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(1, activation="sigmoid")]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def fitted(**arguments):
    x = np.random.default_rng(0).normal(size=(40, 4))
    return make_model().fit(x, x[:, 0] > 0, **{"validation_split": 0.25, "epochs": 6, "verbose": 0} | arguments)


class Page(html.parser.HTMLParser):
    """The cells of each row, and the tags: a tag that is not closed, or closed twice, is an error."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open, self.images, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes))
        elif tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


# -------------------------------------------------------------------------------------------- the model


def test_a_model_is_its_summary_as_a_table():
    page = Page(make_model()._repr_html_())
    assert page.rows == [
        ["Layer (type)", "Output Shape", "Param #"],
        ["hidden (Dense)", "(None, 8)", "40"],
        ["dense (Dense)", "(None, 1)", "9"],
    ]
    assert 'Model: "sequential"' in page.text
    assert "Trainable params: 49 (196.00 B)" in page.text


def test_names_are_no_html():
    name = "<script>alert('a')</script>&amp;"
    layer = keras.layers.Dense(1, name="<b>&lt;")
    text = keras.Sequential([keras.layers.Input((2,)), layer], name=name.replace("/", ""))._repr_html_()
    assert "<script" not in text and "<b>&lt;" not in text
    page = Page(text)
    assert page.rows[1][0] == "<b>&lt; (Dense)"
    assert f'Model: "{name.replace("/", "")}"' in page.text


def test_a_model_that_is_not_built():
    page = Page(keras.Sequential([keras.layers.Dense(3)])._repr_html_())
    assert page.rows[1:] == [["dense (Dense)", "?", "0 (unbuilt)"]]
    assert Page(keras.Sequential()._repr_html_()).rows == [["Layer (type)", "Output Shape", "Param #"]]


def test_tables_have_no_colour_of_their_own_but_grey():
    text = make_model()._repr_html_() + fitted()._repr_html_()
    colours = set(
        re.findall(r"rgba?\([^)]*\)|#[0-9a-f]{3,6}\b|(?<![-\w])color: (\w+)", re.sub('base64,[^"]*', "", text))
    )
    assert colours <= {"", "inherit"}  # "" is the border's grey, half transparent
    assert set(re.findall(r"rgba\([^)]*\)", text)) == {"rgba(128, 128, 128, 0.5)"}
    assert "background" not in text


# ------------------------------------------------------------------------------------------ the history


def lines(axes):
    return {
        line.get_label(): (list(line.get_xdata()), np.squeeze(line.get_ydata()).tolist()) for line in axes.get_lines()
    }


def test_curves_are_the_history():
    pytest.importorskip("matplotlib")
    history = fitted()
    figure = history.plot()
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    for axes in figure.axes:
        name, epochs = axes.get_ylabel(), [1, 2, 3, 4, 5, 6]
        assert axes.get_xlabel() == "epoch"
        drawn = lines(axes)
        assert drawn["training"] == (epochs, history.history[name])
        assert drawn["validation"] == (epochs, history.history[f"val_{name}"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation"]
    assert [axes.get_ylabel() for axes in history.plot("accuracy").axes] == ["accuracy"]


def test_validation_now_and_then_stands_at_its_epochs():
    pytest.importorskip("matplotlib")
    history = fitted(epochs=7, initial_epoch=1, validation_freq=3)
    drawn = lines(history.plot("loss").axes[0])
    assert drawn["training"][0] == [2, 3, 4, 5, 6, 7]
    assert drawn["validation"][0] == [3, 6]
    rows = {row[0]: row[1:] for row in Page(history._repr_html_()).rows}
    losses = history.history["val_loss"]
    assert rows["val_loss"] == [
        f"{losses[-1]:.4f}",
        f"{min(losses):.4f} (epoch {[3, 6][int(np.argmin(losses))]})",
        f"{max(losses):.4f} (epoch {[3, 6][int(np.argmax(losses))]})",
    ]


def test_metrics_of_several_numbers_are_several_lines():
    pytest.importorskip("matplotlib")
    history = History()
    history.set_model(make_model())
    for epoch in range(3):
        history.on_epoch_end(epoch, {"loss": 1.0 - epoch / 4, "f1": np.array([0.25, 0.5]) * epoch})
    f1 = history.plot("f1").axes[0].get_lines()
    assert [list(line.get_ydata()) for line in f1] == [[0.0, 0.25, 0.5], [0.0, 0.5, 1.0]]
    assert [row[:2] for row in Page(history._repr_html_()).rows[1:]] == [["loss", "0.5000"], ["f1", "0.7500"]]


@pytest.mark.parametrize("epochs", [1, 6, 30])
def test_pictures_are_white_png_with_text_that_does_not_overlap(epochs):
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imread
    from matplotlib.text import Text

    figure = fitted(epochs=epochs).plot()
    pixels = imread(io.BytesIO(display.png(figure)), format="png")
    width, height = figure.get_size_inches() * display.SCREEN_DPI
    assert abs(pixels.shape[0] - height) < 1 and abs(pixels.shape[1] - width) < 1
    assert (pixels[0] == 1).all() and (pixels[:, 0] == 1).all()  # white and opaque up to the edge
    assert 0.005 < (pixels[..., :3].min(axis=2) < 0.5).mean() < 0.3
    FigureCanvasAgg(figure).draw()
    boxes = [
        text.get_window_extent()
        for text in [*figure.findobj(Text)]
        if text.get_text().strip() and text.get_visible() and text not in out_of_range(figure)
    ]
    assert len(boxes) > 8
    for i, box in enumerate(boxes):
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[i + 1 :])
    for axes in figure.axes:
        assert all(tick == round(tick) for tick in axes.get_xticks())


def out_of_range(figure):
    from matplotlib.axis import Tick

    return {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.findobj(Tick)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }


def test_a_notebook_shows_curves_and_table():
    pytest.importorskip("matplotlib")
    history = fitted()
    page = Page(history._repr_html_())
    (image,) = page.images
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG\r\n")
    assert image["alt"] == "loss, val_loss, accuracy, val_accuracy by epoch"
    assert [row[0] for row in page.rows] == ["", "loss", "val_loss", "accuracy", "val_accuracy"]
    assert history._repr_png_().startswith(b"\x89PNG\r\n")
    assert history.plot()._repr_png_().startswith(b"\x89PNG\r\n")
    assert repr(history) == "<History of 6 epochs: accuracy, loss, val_accuracy, val_loss>"


def test_figures_can_be_pickled():
    pytest.importorskip("matplotlib")
    figure = pickle.loads(pickle.dumps(fitted().plot()))
    assert figure.axes[0].get_ylabel() == "loss"


def test_what_there_is_not_is_not_shown():
    pytest.importorskip("matplotlib")
    empty = History()
    assert empty._repr_html_() is None and empty._repr_png_() is None
    with pytest.raises(ValueError, match="no epoch was trained"):
        empty.plot()
    with pytest.raises(ValueError, match=r"Unknown quantity in the history: 'acuracy'. Did you mean 'accuracy'"):
        fitted().plot("acuracy")


def test_without_matplotlib_there_is_the_table_and_the_extra_is_named(monkeypatch):
    history = fitted()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    page = Page(history._repr_html_())
    assert page.images == [] and len(page.rows) == 5
    assert history._repr_png_() is None
    with pytest.raises(ImportError, match=r"pip install 'minidl\[plot\]'"):
        history.plot()


# ------------------------------------------------------------------------------------------ a notebook


def load_script():
    spec = importlib.util.spec_from_file_location("notebook_script", ROOT / "docs" / "notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outputs(path):
    """(kind, mime types or the text) of all that the cells of a notebook put out."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        (output["output_type"], sorted(output["data"]) if "data" in output else "".join(output["text"]))
        for cell in cells
        for output in cell.get("outputs", [])
    ]


def assert_shown_as_it_should_be(path):
    assert path.stat().st_size < 300_000
    found = outputs(path)
    assert [kind for kind, _ in found] == ["execute_result", "display_data", "stream", *["execute_result"] * 4]
    assert found[1][1] == ["text/html", "text/plain"]  # the summary
    progress = found[2][1].splitlines()  # plain lines, one an epoch: no bar redrawn, no HTML
    assert [line[:9] for line in progress] == [f"Epoch {i}/5" for i in range(1, 6)]
    assert "\x1b" not in found[2][1] and "\r" not in found[2][1]
    assert found[3][1] == ["text/html", "text/plain"]  # the history
    assert "image/png" in found[4][1]  # its figure
    assert found[6][1] == ["text/html", "text/plain"]


def test_the_notebook_in_docs_is_that_of_its_script():
    path = ROOT / "docs" / "notebook.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = [source.removesuffix("\n") for source in load_script().CELLS]
    texts = ["".join(cell["source"]) for cell in cells]
    assert len(texts) == len(sources) and all(b.endswith(a) for a, b in zip(texts, sources, strict=True))
    for cell in cells:
        if cell["cell_type"] == "code":
            ast.parse("".join(cell["source"]))
    assert_shown_as_it_should_be(path)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    path = tmp_path / "notebook.ipynb"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = [sys.executable, str(ROOT / "docs" / "notebook.py"), str(path)]
    run = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert_shown_as_it_should_be(path)
