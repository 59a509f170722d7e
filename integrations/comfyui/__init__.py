"""afterdetail for ComfyUI: nodes that send pictures to an afterdetail server.

ComfyUI loads this folder, below ``custom_nodes``, under a name of its own: hence relative imports.
"""

from __future__ import annotations

from .nodes import AfterDetail, AfterDetailDetect, AfterDetailStage  # noqa: TID252

NODE_CLASS_MAPPINGS = {
    "AfterDetail": AfterDetail,
    "AfterDetailDetect": AfterDetailDetect,
    "AfterDetailStage": AfterDetailStage,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AfterDetail": "After Detail",
    "AfterDetailDetect": "After Detail: Detect",
    "AfterDetailStage": "After Detail: Stage",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
