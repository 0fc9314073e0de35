"""summary.py: the text that Keras 3.15.1 prints for the same models, recorded from it."""

import numpy as np
import pytest

from minidl.layers import Dense, Dropout, Input
from minidl.models import Sequential

BUILT = """
Model: "sequential"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ dense (Dense)                   │ (None, 8)              │            40 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ dropout (Dropout)               │ (None, 8)              │             0 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ dense_1 (Dense)                 │ (None, 1)              │             9 │
└─────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 49 (196.00 B)
 Trainable params: 49 (196.00 B)
 Non-trainable params: 0 (0.00 B)
"""
FITTED = BUILT.replace("Total params: 49 (196.00 B)", "Total params: 149 (600.00 B)") + (
    " Optimizer params: 100 (404.00 B)\n"
)
UNBUILT = """
Model: "sequential"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ dense (Dense)                   │ ?                      │   0 (unbuilt) │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ dropout (Dropout)               │ ?                      │             0 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ dense_1 (Dense)                 │ ?                      │   0 (unbuilt) │
└─────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 0 (0.00 B)
 Trainable params: 0 (0.00 B)
 Non-trainable params: 0 (0.00 B)
"""
LONG_NAME = """
Model: "sequential"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ a_very_long_name_for_a_layer_t… │ (None, 1000)           │       301,000 │
│ (Dense)                         │                        │               │
└─────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 301,000 (1.15 MB)
 Trainable params: 301,000 (1.15 MB)
 Non-trainable params: 0 (0.00 B)
"""
NARROW = """
Model: "sequential"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━┓
┃ Layer (type)             ┃ Output Shape      ┃   Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━┩
│ dense (Dense)            │ (None, 1)         │         5 │
└──────────────────────────┴───────────────────┴───────────┘
 Total params: 5 (20.00 B)
 Trainable params: 5 (20.00 B)
 Non-trainable params: 0 (0.00 B)
"""


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def summary(model, **arguments):
    texts = []
    model.summary(print_fn=texts.append, **arguments)
    (text,) = texts  # the whole text at once
    return "\n" + text


def layers():
    return [Dense(8, activation="relu"), Dropout(0.5), Dense(1, activation="sigmoid")]


def test_built_and_fitted():
    model = Sequential([Input((4,)), *layers()])
    assert summary(model) == BUILT
    model.compile("adam", "binary_crossentropy")
    assert summary(model) == BUILT  # the optimizer has no state before the first step
    model.fit(np.ones((3, 4)), np.ones(3), verbose=0)
    assert summary(model) == FITTED


def test_unbuilt():
    assert summary(Sequential(layers())) == UNBUILT


def test_a_long_name_and_a_large_layer():
    name = "a_very_long_name_for_a_layer_that_goes_on_and_on"
    assert summary(Sequential([Input((300,)), Dense(1000, name=name)])) == LONG_NAME


def test_line_length():
    assert summary(Sequential([Input((4,)), Dense(1)]), line_length=60) == NARROW


def test_float64_takes_twice_the_memory():
    text = summary(Sequential([Input((4,)), Dense(1, dtype="float64")]))
    assert " Total params: 5 (40.00 B)\n" in text


def test_printed_to_the_terminal(capsys):
    Sequential([Input((4,)), *layers()]).summary()
    assert "\n" + capsys.readouterr().out == BUILT


def test_names_are_not_taken_as_markup():
    text = summary(Sequential([Input((4,)), Dense(1, name="a[bold]b")], name="[red]"))
    assert "a[bold]b (Dense)" in text
    assert 'Model: "[red]"' in text


def test_a_model_without_layers():
    assert summary(Sequential(name="empty")).startswith('\nModel: "empty"\n')


@pytest.mark.keras
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"expand_nested": True},
        {"show_trainable": True, "expand_nested": True},
        {"layer_range": ["inn.*", "drop"]},
        {"layer_range": ["drop", "inn.*"]},
        {"positions": [0.3, 0.6, 1.0]},
        {"line_length": 60, "show_trainable": True},
    ],
)
def test_the_text_is_keras_s(keras, arguments):
    import minidl

    texts = []
    for library in (keras, minidl.keras):
        layers = library.layers
        inner = [layers.Input((3,)), layers.Dense(5, name="a"), layers.Dense(2, name="b", trainable=False)]
        model = library.Sequential(
            [
                layers.Input((4,)),
                layers.Dense(3, name="first"),
                library.Sequential(inner, name="inner"),
                layers.Dropout(0.1, name="drop"),
                layers.Dense(1, name="last"),
            ],
            name="outer",
        )
        texts.append(summary(model, **arguments))
    assert texts[1] == texts[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer_range": ["first"]}, "layer_range must be two names"),
        ({"layer_range": ["dense", 1]}, "layer_range must be two names"),
        ({"layer_range": ["dense", "nothing"]}, r"matches no layer; there are \['dense', 'dropout', 'dense_1'\]"),
        ({"positions": [0.5, 1.0]}, "one end for each"),
        ({"positions": [0.5, 0.51, 1.0]}, "too narrow"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sequential([Input((4,)), *layers()]).summary(**arguments)
