"""The forms of the API's JSON answers, and what OpenAPI cannot find out by itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, Field

from abair.serving.options import MEDIA_TYPE_OF

DEPLOYMENT: Final = "ABAIR-Deployment"
"""The header of every answer that names the deployment."""
RESULT: Final = "ABAIR-Result"
"""The header of a restored photo: JSON with its weights and how it was made."""

_BYTES: Final = {"schema": {"type": "string", "format": "binary"}}
PHOTO: Final = {
    "requestBody": {
        "required": True,
        "description": "A photo in any format that ABAIR reads: the body itself, or a form with the field `file`. The "
        "other fields of the form are options, too.",
        "content": {
            "application/octet-stream": _BYTES,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": _BYTES["schema"]},
                }
            },
        },
    }
}
RESTORED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": f"The restored photo; the header {RESULT} is JSON with its weights and how it was made.",
        "content": dict.fromkeys(MEDIA_TYPE_OF.values(), _BYTES),
        "headers": {RESULT: {"schema": {"type": "string"}}, DEPLOYMENT: {"schema": {"type": "string"}}},
    }
}
"""What `/v1/restore` answers."""


class Estimate(BaseModel):
    """What the estimator sees in a photo."""

    deployment: str
    weights: dict[str, float] = Field(description="one for each label; they sum to 1")
    confidence: float | None = Field(
        description="how much of the weights lies on true labels, as is to be expected; null where the deployment "
        "cannot tell"
    )
    unknown: float | None = Field(
        description="the part of known photos that are more like what was learnt; above 0.95 the damage is taken for "
        "unknown; null as the confidence, and below 256 pixels a side"
    )
    megapixels: float


class Adapter(BaseModel):
    """A degradation that is known, and the distribution of its adapter."""

    degradation: str
    title: str
    distribution: str
    version: str


class DeploymentInfo(BaseModel):
    """What serves, and what the server takes."""

    deployment: str
    created: datetime
    labels: list[str]
    backbone: str
    adapters: list[Adapter]
    device: str
    precision: str
    version: str = Field(description="of ABAIR")
    limits: dict[str, float | None]
    problem: str = Field(description="why another deployment that went live does not serve, or nothing")


class Health(BaseModel):
    """How the server is."""

    status: str
    deployment: str
