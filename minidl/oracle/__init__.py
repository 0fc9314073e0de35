"""The correctness oracle: Keras's real training, recorded, against minidl and against error bounds."""
