"""Makes docs/notebook.ipynb: the class notebook of the README in cells, executed. python docs/notebook.py [file]

Errors: whatever a cell raises; the file is then left as it was.
"""

import os
import sys
from pathlib import Path

OUT = Path(__file__).with_name("notebook.ipynb")

# A cell that begins with "#" and a space is text.
CELLS = [
    """\
# Over-fitting, and what penalties and dropout do

333 penguins, four measurements each; the sex is to be told from them. The code is Keras's; only the import lines
are minidl's.
""",
    """\
import minidl as tf
from minidl import keras

(x_train, y_train), (x_test, y_test) = keras.datasets.penguins.load_data()
x_train, x_test = keras.datasets.standardize(x_train, x_test)
keras.utils.set_random_seed(2)  # with most seeds, such strong penalties leave nothing but a constant prediction
x_train.shape, x_test.shape
""",
    """\
# ## A model with penalties

L1 on the first layer's kernel, L2 on the second's. A notebook shows the summary as a table, and likewise the model
itself.
""",
    """\
model = keras.models.Sequential(
    [
        keras.layers.Dense(
            4, activation=tf.nn.relu, input_shape=(4,), kernel_regularizer=keras.regularizers.l1(l1=0.1)
        ),
        keras.layers.Dense(4, activation=tf.nn.relu, kernel_regularizer=keras.regularizers.l2(l2=0.1)),
        keras.layers.Dense(1, activation=tf.nn.sigmoid),
    ]
)
model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
model.summary()
""",
    "model.fit(x_train, y_train, epochs=5, validation_split=0.2);\n",
    """\
# What `fit` returns is shown as its learning curves and a table; `history.plot` makes the matplotlib figure alone.
""",
    """\
history = model.fit(x_train, y_train, initial_epoch=5, epochs=100, validation_split=0.2, verbose=0)
history
""",
    'history.plot("loss")\n',
    "model.evaluate(x_test, y_test, return_dict=True, verbose=0)\n",
    "# ## The same with dropout\n",
    """\
dropout_model = keras.models.Sequential(
    [
        keras.layers.Dense(
            4, activation=tf.nn.relu, input_shape=(4,), kernel_regularizer=keras.regularizers.l1(l1=0.1)
        ),
        keras.layers.Dropout(rate=0.8),
        keras.layers.Dense(4, activation=tf.nn.relu, kernel_regularizer=keras.regularizers.l2(l2=0.1)),
        keras.layers.Dropout(rate=0.5),
        keras.layers.Dense(1, activation=tf.nn.sigmoid),
    ]
)
dropout_model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
dropout_model.fit(x_train, y_train, epochs=100, validation_split=0.2, verbose=0)
""",
]


def main(out: Path) -> None:
    """Execute the cells in a new kernel and write the notebook."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook()
    for i, source in enumerate(CELLS):
        source = source.removesuffix("\n")
        text = source.startswith("# ")
        cell = (
            nbformat.v4.new_markdown_cell(source if i == 0 else source.removeprefix("# "))
            if text
            else nbformat.v4.new_code_cell(source)
        )
        cell["id"] = f"cell-{i}"
        notebook.cells.append(cell)
    client = NotebookClient(notebook, kernel_name="python3", record_timing=False, coalesce_streams=True, timeout=120)
    client.execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output["data"].pop("image/png", None)  # the HTML holds the same picture
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    temporary = out.with_name(out.name + ".part")
    nbformat.write(notebook, temporary)
    os.replace(temporary, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
