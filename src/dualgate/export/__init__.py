"""What leaves Python's memory: model files without code, model cards, and models as torch modules and ONNX graphs."""

from dualgate.export.graphs import export_onnx, to_torch
from dualgate.export.model_card import model_card
from dualgate.export.model_files import ModelFileError, load_model, save_model

__all__ = ["ModelFileError", "export_onnx", "load_model", "model_card", "save_model", "to_torch"]
