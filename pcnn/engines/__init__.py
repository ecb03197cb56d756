"""Fast inference: PyTorch programs, CUDA graphs, ONNX Runtime, OpenVINO and export."""

from pcnn.engines.select import ENGINES, PRECISIONS, choose_engine

__all__ = ["ENGINES", "PRECISIONS", "choose_engine"]
