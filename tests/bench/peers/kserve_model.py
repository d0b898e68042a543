"""An ONNX model in KServe's own server, run in an environment that has it: MODEL_FILE says which."""

from __future__ import annotations

import os
from typing import Any

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class OnnxModel(Model):  # type: ignore[misc]
    """One session of one thread, as the server that it is compared with has."""

    def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(os.environ["MODEL_FILE"], options)
        self.ready = True
        return True

    def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        outputs = self.session.run(None, {g.name: g.as_numpy() for g in payload.inputs})
        told = []
        for node, array in zip(self.session.get_outputs(), outputs, strict=True):
            output = InferOutput(name=node.name, shape=list(array.shape), datatype="FP32")
            output.set_data_from_numpy(array, binary_data=True)
            told.append(output)
        return InferResponse(
            response_id=payload.id or "0", model_name=self.name, infer_outputs=told
        )

    async def get_input_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return [describe(node) for node in self.session.get_inputs()]

    async def get_output_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return [describe(node) for node in self.session.get_outputs()]


def describe(node: Any) -> dict[str, Any]:
    """An input or output in the protocol's words."""
    shape = [extent if isinstance(extent, int) else -1 for extent in node.shape]
    return {"name": node.name, "datatype": "FP32", "shape": shape}


if __name__ == "__main__":
    model = OnnxModel("mlp")
    model.load()
    ModelServer().start([model])
