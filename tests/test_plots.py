"""The figures: what is drawn is the data, the files are whole PNGs of the right size, and no text overlaps."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minidl import display, plots, study

pytest.importorskip("matplotlib")

EPOCHS = 30


@pytest.fixture
def runs(rng):
    made = {}
    for name, variant in study.VARIANTS.items():
        losses = rng.uniform(0.1, 0.9, size=(3, 4, EPOCHS))
        kernels = rng.normal(scale=0.1, size=(4, 500))
        made[name] = study.Runs(variant.title, losses[0], losses[1], losses[2], kernels)
    return made


@pytest.fixture
def histories(rng):
    def history():
        return {key: list(rng.uniform(size=EPOCHS)) for key in ("loss", "val_loss", "accuracy", "val_accuracy")}

    return {"first": (history(), history()), "second": (history(), history())}


@pytest.fixture
def masks(rng):
    return {
        "dropout": (0.8, [rng.random((32 if step % 9 < 8 else 11, 4)) >= 0.8 for step in range(90)]),
        "dropout_1": (0.5, [rng.random((32 if step % 9 < 8 else 11, 4)) >= 0.5 for step in range(90)]),
    }


@pytest.fixture
def figures(runs, histories, masks):
    return {
        "learning-curves": plots.learning_curves(histories, keras_label="Keras, recorded"),
        "over-fitting": plots.over_fitting(runs),
        "l1-and-l2": plots.l1_and_l2(runs, near_zero=0.01),
        "dropout": plots.dropout(masks),
    }


def lines(axes):
    return {line.get_label(): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in axes.lines}


def panels(figure):
    """The axes by title, those of subfigures too."""
    return {axes.get_title(): axes for axes in figure.axes}


# ------------------------------------------------------------------------------------------- the files


def test_files_are_png_of_the_figures_size_and_not_blank(figures, tmp_path):
    from matplotlib.image import imread

    for name, figure in figures.items():
        path = tmp_path / f"{name}.png"
        plots.save(figure, path)
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        image = imread(path)
        width, height = figure.get_size_inches()
        assert image.shape[:2] == (round(height * display.DPI), round(width * display.DPI))
        assert image[..., :3].mean() > 0.7  # a light background
        assert (image[..., :3].min(axis=2) < 0.5).mean() > 0.01  # with something on it
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{name}.png" for name in figures)


def test_texts_do_not_overlap(figures):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    for name, figure in figures.items():
        FigureCanvasAgg(figure).draw()
        hidden = labels_of_ticks_out_of_range(figure)
        texts = [
            (text.get_text(), text.get_window_extent())
            for text in figure.findobj(Text)
            if text.get_text().strip() and text.get_visible() and text not in hidden
        ]
        assert len(texts) > 20
        for (a, box_a), (b, box_b) in itertools.combinations(texts, 2):
            assert not box_a.padded(-1).overlaps(box_b.padded(-1)), f"{name}: {a!r} lies on {b!r}"
        for text, box in texts:
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            assert inside, f"{name}: {text!r} is cut off"


def labels_of_ticks_out_of_range(figure):
    """The labels of ticks that exist but are not drawn, because they lie outside their axis's range."""
    from matplotlib.axis import Tick

    axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    return {
        label
        for axis in axes
        for tick in axis.findobj(Tick)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    class Broken:
        def savefig(self, target, **options):
            target.write_bytes(b"half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        plots.save(Broken(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]
    assert path.read_bytes() == b"old"


def test_no_global_state_of_matplotlib_is_touched():
    program = (
        "import sys; from minidl import plots; assert 'matplotlib' not in sys.modules; "
        # reading rcParams["backend"] would itself choose one, and load pyplot
        "import matplotlib; settings = lambda: {k: v for k, v in dict.items(matplotlib.rcParams)}; "
        "before = settings(); plots.dropout({'dropout': (0.5, [[[True, False]]])}); assert before == settings(); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_without_matplotlib_the_extra_is_named(monkeypatch, runs):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'minidl\[plot\]'"):
        display.require_matplotlib()
    with pytest.raises(ImportError, match=r"pip install 'minidl\[plot\]'"):
        plots.over_fitting(runs)


# -------------------------------------------------------------------------------------- what is drawn


def test_learning_curves_are_the_histories_with_kerass_first_and_last_epoch(histories):
    figure = plots.learning_curves(histories, keras_label="Keras")
    for column, (ours, keras) in enumerate(histories.values()):
        for row, metric in enumerate(("loss", "accuracy")):
            drawn = lines(figure.axes[2 * row + column])
            for key, what in ((metric, "train"), (f"val_{metric}", "validation")):
                x, y = drawn[f"minidl, {what}"]
                np.testing.assert_array_equal(x, np.arange(1, EPOCHS + 1))
                np.testing.assert_array_equal(y, ours[key])
                x, y = drawn[f"Keras, {what}"]
                np.testing.assert_array_equal(y, np.array(keras[key])[x - 1])
                assert (x[0], x[-1], len(x)) == (1, EPOCHS, 20)


def test_over_fitting_shows_mean_and_range_of_the_seeds(runs):
    figure = plots.over_fitting(runs)
    limits = {axes.get_ylim() for axes in figure.axes}
    assert len(limits) == 1  # the panels compare
    for axes, variant in zip(figure.axes, runs.values(), strict=True):
        assert variant.title in axes.get_title()
        assert f"{variant.gap.mean():.2f} nats" in axes.get_title()
        for label, losses in (("train loss", variant.train_loss), ("validation loss", variant.validation_loss)):
            np.testing.assert_array_equal(lines(axes)[label][1], losses.mean(axis=0))
        for band, losses in zip(axes.collections, (variant.train_loss, variant.validation_loss), strict=True):
            corners = band.get_paths()[0].vertices
            assert corners[:, 1].min() == losses.min()
            assert corners[:, 1].max() == losses.max()


def test_l1_and_l2_curves_are_the_penalties_and_their_gradients(runs):
    drawn = panels(plots.l1_and_l2(runs, near_zero=0.01))
    penalties = lines(drawn["The penalty of one weight"])
    w, l1 = penalties["L1: λ|w|"]
    np.testing.assert_allclose(l1, np.abs(w), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(penalties["L2: λw²"][1], w**2, rtol=1e-12, atol=1e-12)
    gradients = next(axes for title, axes in drawn.items() if title.startswith("Its gradient"))
    w, d_l2 = lines(gradients)["L2: 2λw"]
    np.testing.assert_allclose(d_l2, 2 * w, rtol=1e-12, atol=1e-12)
    for line in gradients.lines[:2]:  # two lines, so that the jump at 0 is not drawn as a slope
        np.testing.assert_array_equal(line.get_ydata(), np.sign(line.get_xdata()))
        assert 0 not in line.get_xdata()


def test_histograms_count_every_weight_and_the_small_ones_in_the_middle(runs):
    runs["l1"].kernels[...] = np.where(np.abs(runs["l1"].kernels) < 0.15, 0.005, runs["l1"].kernels)
    runs["l2"].kernels[:, :3] = 0.0
    runs["plain"].kernels[0, 0] = 3.0
    drawn = panels(plots.l1_and_l2(runs, near_zero=0.01))
    for name in ("plain", "l1", "l2"):
        variant = runs[name]
        axes = drawn[variant.title]
        heights = np.array([bar.get_height() for bar in axes.patches])
        assert heights.sum() == pytest.approx(500)  # weights per net
        middle = axes.patches[len(heights) // 2]
        assert middle.get_x() == pytest.approx(-0.01)
        assert middle.get_width() == pytest.approx(0.02)
        assert middle.get_height() == pytest.approx(variant.near_zero.mean())
        (text,) = [t.get_text() for t in axes.texts]
        assert f"|w| < 0.01: {variant.near_zero.mean():.0f} of 500" in text
        assert f"exactly 0: {3 if name == 'l2' else 0}\n" in text
        assert f"largest |w|: {np.abs(variant.kernels).max():.2f}" in text


def test_dropout_raster_is_the_first_bird_of_each_step(masks):
    figure = plots.dropout(masks, steps=20)
    for name, (rate, drawn) in masks.items():
        (axes,) = [axes for axes in figure.axes if axes.get_title().startswith(f"{name}, rate {rate:g}")]
        cells = axes.collections[0].get_array().reshape(4, 20)
        np.testing.assert_array_equal(cells, np.array([mask[0] for mask in drawn[:20]]).T)
        everything = np.concatenate(drawn)
        assert f"{100 * everything.mean():.1f} % of {everything.size:,} kept" in axes.get_title()


def test_dropout_running_means_end_at_those_of_all_masks(masks):
    drawn = lines(panels(plots.dropout(masks))["Mean output of inputs of 1, this run"])
    for name, (rate, steps) in masks.items():
        kept = np.concatenate(steps).mean()
        x, scaled = drawn[f"{name}: scaled by {1 / (1 - rate):g}"]
        assert x[-1] == 90
        assert scaled[-1] == pytest.approx(kept / (1 - rate), rel=1e-12)
        assert drawn[f"{name}: not scaled"][1][-1] == pytest.approx(kept, rel=1e-12)


def test_mean_outputs_are_one_scaled_and_the_kept_fraction_unscaled():
    rates, draws = np.linspace(0, 0.9, 10), 4000 * 4
    plain, scaled = plots.mean_outputs(rates, masks=4000)
    spread = np.sqrt(rates * (1 - rates) / draws)
    assert (np.abs(plain - (1 - rates)) <= 5 * spread + 1e-12).all()
    np.testing.assert_allclose(scaled, plain / (1 - rates), rtol=1e-6)  # float32 outputs
