"""An ONNX model in MLServer, run in an environment that has it: MODEL_FILE says which."""

from __future__ import annotations

import os

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):  # type: ignore[misc]
    """One session of one thread, as the server that it is compared with has."""

    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(os.environ["MODEL_FILE"], options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {given.name: NumpyCodec.decode_input(given) for given in payload.inputs}
        outputs = self.session.run(None, inputs)
        names = [node.name for node in self.session.get_outputs()]
        encoded = [NumpyCodec.encode_output(*pair) for pair in zip(names, outputs, strict=True)]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=encoded)
