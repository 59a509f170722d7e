"""What a cluster is made of: one record, from a Ray Serve config file or the command line."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt


class ClusterOptions(BaseModel):
    """The ``args`` of the application ``afterdetail.deploy.ray_serve:application``.

    What a request may do and who may send it are the server's own settings (``AFTERDETAIL_...``),
    from the environment of the nodes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    models: str = "sd15"
    """As for ``afterdetail serve``; a catalogue file lies in the same place on every node."""
    device: str | None = None
    """Of the engines: ``cpu`` or ``cuda``; null: the fastest there is."""
    engines: NonNegativeInt = 1
    """Engines at least; 0: none while nobody asks."""
    max_engines: PositiveInt = 1
    """Engines at most. Between the two, as many as the orders under way need."""
    engine_cpus: NonNegativeFloat = 1
    """Cores that Ray reserves for an engine, and the threads that it computes with."""
    engine_gpus: NonNegativeFloat = 0
    """Accelerators of an engine. A part of one isolates no memory: 1 for real models."""
    engine_resources: dict[str, float] = {}
    """Other resources of Ray's that a node must have for an engine."""
    orders_at_once: PositiveInt = 16
    """Waves of orders an engine works on at once; it denoises all of them together."""
    target_orders: Annotated[float, Field(gt=0)] = 8
    """Waves per engine, at work or waiting, above which another engine is started."""
    most_waiting: PositiveInt = 200
    """Waves that one ingress lets wait for an engine; then it answers 429."""
    models_per_engine: PositiveInt = 4
    """Checkpoints that fit into an engine's memory: requests go where theirs is."""
    ingresses: PositiveInt = 1
    """Processes that decode, detect and compose."""
    ingress_cpus: NonNegativeFloat = 1
    """Cores that Ray reserves for each of them."""
    anonymous: bool = False
    """Serve without tokens. Only where nobody else reaches the cluster's proxies."""
