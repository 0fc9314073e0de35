"""Which names of Keras a plain MLP script uses, which it does not and why, and which arguments each name takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from compatibility import models, objects, others
from compatibility.engine import Entry, resolve

ENTRIES: list[Entry] = [
    entry
    for module in (objects, models, others)
    for found in vars(module).values()
    if isinstance(found, list)
    for entry in found
    if isinstance(entry, Entry)
]

# section of the page -> how its rows are tried
SECTIONS = {
    "keras": "Used in a small model.",
    "Sequential": "Methods and properties of a model. Compared: what is returned and printed, histories, the hooks "
    "that callbacks see, the weights afterwards.",
    "layers": "Each layer stands between two `Dense` layers for two training steps. Compared: losses, outputs, "
    "weights, what is trainable, the name, the config.",
    "Layer": "Methods and properties of a layer.",
    "activations": "Compared: values on both sides of every kink; the gradient, in two steps of a `Dense` layer that "
    "names the function.",
    "initializers": "Compared: two arrays drawn in turn, in float64 and in float32; the config.",
    "regularizers": "Compared: the value; the gradient, in two steps; the config.",
    "constraints": "Compared: the value; a kernel that it holds, for two steps; the config.",
    "losses": "Compared: the value, without and with sample weights; the gradient, in two steps; the name; the config.",
    "Loss": "Methods and properties of a loss.",
    "metrics": "Compared: the result of two batches, one of them weighted, and after `reset_state`; the name; the "
    "config.",
    "Metric": "Methods and properties of a metric.",
    "optimizers": "Compared: four steps: losses, weights, learning rate, iterations, name, config.",
    "Optimizer": "Methods and properties of an optimizer.",
    "optimizers.schedules": "Compared: the rate at eight steps, the name, the config.",
    "callbacks": "Compared, over six epochs: the history, the weights, the files written, the text printed.",
    "Callback": "Methods of a callback.",
    "models": "Compared: outputs and weights of the model that is loaded or copied, and its next training step.",
    "saving": "As `models`.",
    "utils": "Compared: what is returned, or what it changes.",
    "config": "Each setting is set, read and set back.",
    "backend": "As `config`.",
    "random": "Compared: the numbers drawn.",
    "wrappers": "Compared: what an estimator of scikit-learn predicts.",
    "SeedGenerator": "Methods of a generator.",
}
MEMBERS = ("Sequential", "Layer", "Loss", "Metric", "Optimizer", "Callback", "SeedGenerator")

# why -> section -> names that minidl leaves out
OUTSIDE: dict[str, dict[str, str]] = {
    "convolution, pooling and images": {
        "layers": "AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D "
        "AdaptiveMaxPooling2D AdaptiveMaxPooling3D AugMix AutoContrast AveragePooling1D AveragePooling2D "
        "AveragePooling3D AvgPool1D AvgPool2D AvgPool3D CenterCrop ContrastLimitedAdaptiveHistogramEqualization "
        "Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose Convolution1D Convolution1DTranspose "
        "Convolution2D Convolution2DTranspose Convolution3D Convolution3DTranspose Cropping1D Cropping2D Cropping3D "
        "CutMix DepthwiseConv1D DepthwiseConv2D Equalization GlobalAveragePooling1D GlobalAveragePooling2D "
        "GlobalAveragePooling3D GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D "
        "GlobalMaxPool3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D MaxNumBoundingBoxes "
        "MaxPool1D MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D MaxPooling3D MixUp Pipeline RandAugment "
        "RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform "
        "RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective "
        "RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom "
        "Resizing SeparableConv1D SeparableConv2D SeparableConvolution1D SeparableConvolution2D Solarization "
        "SpatialDropout1D SpatialDropout2D SpatialDropout3D UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D "
        "ZeroPadding2D ZeroPadding3D",
        "metrics": "BinaryIoU IoU MeanIoU OneHotIoU OneHotMeanIoU",
        "utils": "array_to_img image_dataset_from_directory img_to_array load_img save_img",
        "config": "disable_flash_attention enable_flash_attention image_data_format is_flash_attention_enabled "
        "set_image_data_format",
        "backend": "image_data_format set_image_data_format",
    },
    "sequences, text and sound": {
        "layers": "AdditiveAttention Attention Bidirectional ConvLSTM1D ConvLSTM2D ConvLSTM3D Embedding GRU GRUCell "
        "GroupQueryAttention LSTM LSTMCell Masking MelSpectrogram MultiHeadAttention Permute RNN RepeatVector "
        "ReversibleEmbedding "
        "STFTSpectrogram SimpleRNN SimpleRNNCell StackedRNNCells TextVectorization TimeDistributed",
        "losses": "CTC ctc",
        "initializers": "STFT STFTInitializer stft",
        "utils": "audio_dataset_from_directory pad_sequences text_dataset_from_directory timeseries_dataset_from_array",
    },
    "categories turned into numbers": {
        "layers": "CategoryEncoding Discretization HashedCrossing Hashing IntegerLookup StringLookup",
        "utils": "FeatureSpace",
    },
    "graphs of layers with several inputs": {
        "layers": "Add Average Concatenate Dot Maximum Minimum Multiply Subtract add average concatenate dot maximum "
        "minimum multiply subtract",
        "utils": "get_source_inputs is_keras_tensor model_to_dot plot_model",
        "backend": "is_keras_tensor",
        "keras": "Function InputSpec KerasTensor Operation",
        "layers ": "InputSpec",
        "Sequential": "compute_mask compute_output_spec input input_spec inputs output outputs path supports_masking "
        "symbolic_call",
        "Layer": "compute_mask compute_output_spec input input_spec output path supports_masking symbolic_call",
    },
    "code of a framework within the model, derivatives of code, steps and weights of one's own": {
        "layers": "EinsumDense FlaxLayer JaxLayer Lambda SpectralNormalization TFSMLayer TorchModuleWrapper Wrapper",
        "keras": "Optimizer Quantizer RematScope StatelessScope SymbolicScope Variable device name_scope remat version",
        "Sequential": "add_loss add_variable add_weight call call_signature_parameters compute_loss compute_metrics "
        "make_predict_function make_test_function make_train_function predict_step rematerialized_call stateless_call "
        "stateless_compute_loss test_step train_step loss get_state_tree metrics_variables set_state_tree",
        "Layer": "add_loss add_variable add_weight call metrics metrics_variables rematerialized_call stateless_call",
        "Metric": "add_variable add_weight stateless_reset_state stateless_result stateless_update_state",
        "Optimizer": "add_optimizer_variables add_variable add_variable_from_reference apply apply_gradients assign "
        "assign_add assign_sub build finalize_variable_values scale_loss set_weights stateless_apply update_step",
        "optimizers": "Optimizer",
        "utils": "pack_x_y_sample_weight unpack_x_y_sample_weight",
    },
    "losses for segmentation, for pairs, and for noisy labels": {
        "losses": "CategoricalGeneralizedCrossEntropy Circle Dice Tversky categorical_generalized_cross_entropy circle "
        "dice tversky",
    },
    "low precision, quantization, other devices": {
        "keras": "DTypePolicy FloatDTypePolicy",
        "optimizers": "LossScaleOptimizer",
        "Sequential": "dtype_policy distribute_reduction_method distribute_strategy export "
        "get_quantization_layer_structure quantization_mode quantize quantized_build quantized_call",
        "Layer": "dtype_policy quantization_mode quantize quantized_build quantized_call",
        "config": "backend dtype_policy is_nnx_enabled set_backend set_dtype_policy",
        "backend": "backend get_uid is_float_dtype is_int_dtype result_type standardize_dtype",
        "utils": "standardize_dtype",
    },
    "other update rules": {
        "optimizers": "Adafactor Ftrl Lamb Lion MultiOptimizer Muon OptimizerMap ScheduleFreeAdamW",
    },
    "tools": {
        "callbacks": "CallbackList OrbaxCheckpoint RemoteMonitor",
        "config": "disable_interactive_logging disable_traceback_filtering enable_interactive_logging "
        "enable_traceback_filtering enable_unsafe_deserialization is_interactive_logging_enabled "
        "is_traceback_filtering_enabled max_epochs max_steps_per_epoch set_max_epochs set_max_steps_per_epoch",
        "utils": "Config Progbar disable_interactive_logging enable_interactive_logging get_file "
        "is_interactive_logging_enabled split_dataset",
        "saving": "KerasFileEditor",
        "Sequential": "load_own_variables save_own_variables",
        "Layer": "load_own_variables save_own_variables",
        "Optimizer": "load_own_variables save_own_variables",
    },
    "draws that a plain MLP does not make": {"random": "beta binomial categorical gamma shuffle"},
    "deprecated": {
        "Sequential": "add_metric compiled_loss compiled_metrics",
        "Layer": "add_metric",
    },
}

# Whole modules of Keras.
MODULES_OUTSIDE = set(
    [
        "applications",
        "datasets",
        "distillation",
        "distribution",
        "dtype_policies",
        "export",
        "legacy",
        "mixed_precision",
        "ops",
        "preprocessing",
        "quantizers",
        "tree",
        "visualization",
    ]
)


def modules_of(keras: Any) -> set[str]:
    """The public modules of Keras; src is not."""
    return {n for n in dir(keras) if n[0] != "_" and n != "src" and inspect.ismodule(getattr(keras, n))}


def outside(section: str) -> dict[str, str]:
    """name -> why it is left out, of one section."""
    return {
        name: why
        for why, sections in OUTSIDE.items()
        for where, names in sections.items()
        if where.strip() == section
        for name in names.split()
    }


def section_of(path: str) -> str:
    return path.rpartition(".")[0] or "keras"


def entries_of(section: str) -> list[Entry]:
    return [entry for entry in ENTRIES if section_of(entry.path) == section]


def names_in(keras: Any, section: str) -> set[str]:
    """Every public name of a module of Keras, or member of one of its classes."""
    if section == "keras":
        home = keras
    elif section == "SeedGenerator":
        home = keras.random.SeedGenerator
    elif section == "Callback":
        home = keras.callbacks.Callback
    else:
        home = resolve(keras, section)
    return {n for n in dir(home) if n[0] != "_" and not inspect.ismodule(getattr(home, n))}


def arguments_of(keras: Any, entry: Entry) -> tuple[set[str], bool]:
    """The names of Keras's arguments, the base's too where **kwargs go there; and whether others are taken."""
    section, name = section_of(entry.path), entry.path.rpartition(".")[2]
    home = getattr(keras, section, None) if section in MEMBERS else None
    home = {"SeedGenerator": keras.random.SeedGenerator, "Callback": keras.callbacks.Callback}.get(section, home)
    target = getattr(home, name, None) if home is not None else resolve(keras, entry.path)
    if not callable(target):
        return set(), False
    of_class = inspect.isclass(target)
    parameters = list(inspect.signature(target.__init__ if of_class else target).parameters.values())
    if of_class or (home is not None and parameters[:1] and parameters[0].name == "self"):
        parameters = parameters[1:]
    open_ended = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
    names = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    is_layer = of_class and issubclass(target, keras.layers.Layer) and not issubclass(target, keras.Model)
    if open_ended and is_layer and target.__name__ != "InputLayer":
        base = inspect.signature(keras.layers.Layer.__init__).parameters.values()
        names |= {p.name for p in base if p.kind is p.KEYWORD_ONLY}
    return names, open_ended


def uncovered(keras: Any, section: str) -> list[str]:
    """What Keras has and no entry tries, and what an entry tries and Keras has no more."""
    found = []
    entries: dict[str, list[Entry]] = {}
    for entry in entries_of(section):
        entries.setdefault(entry.path.rpartition(".")[2], []).append(entry)
    names, left_out = names_in(keras, section), outside(section)
    instance = INSTANCE_ONLY if section in ("Sequential", "Layer") else set()
    found += [f"{section}.{name}: nothing tries it" for name in sorted(names - set(entries) - set(left_out))]
    found += [f"{section}.{name}: Keras does not have it" for name in sorted(set(entries) - names - instance)]
    found += [
        f"{section}.{name}: left out, but Keras does not have it" for name in sorted(set(left_out) - names - instance)
    ]
    found += [f"{section}.{name}: tried, and also left out" for name in sorted(set(left_out) & set(entries))]
    for name, tries in entries.items():
        if name not in names:
            continue
        takes, open_ended = arguments_of(keras, tries[0])
        tried: set[str] = set().union(*({*t.arguments, *t.required} for t in tries))
        found += [f"{section}.{name}: nothing tries {a}" for a in sorted(takes - tried)]
        found += [f"{section}.{name}: Keras does not take {a}" for a in sorted(tried - takes) if not open_ended]
    return found


# Set in Keras's constructors and by compile, so that dir() of the class does not show them.
INSTANCE_ONLY = set(
    [
        "activity_regularizer",
        "built",
        "call_signature_parameters",
        "compiled",
        "name",
        "optimizer",
        "steps_per_execution",
        "stop_training",
    ]
)


def joined(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
