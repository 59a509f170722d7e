"""An autoencoder in a place of its own, to take the place of the one that a model brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from afterdetail.errors import WeightsError
from afterdetail.models.architecture import SCALING, VAE, vae_config
from afterdetail.models.folder import network_in
from afterdetail.models.header import Header, count, read_header
from afterdetail.models.networks import Target
from afterdetail.models.tensors import read_tensors
from afterdetail.options import Base


def load_autoencoder(name: str, base: Base, path: Path, target: Target) -> AutoencoderKL:
    """Read an autoencoder: diffusers' folder of one, or one file, in diffusers' layout or the
    original one with or without its prefix.

    Raises:
        WeightsError: it is damaged or holds none.
    """
    try:
        network: AutoencoderKL = (
            network_in(path, AutoencoderKL, target)
            if path.is_dir()
            else _from_file(path, base, target)
        )
    except (OSError, KeyError, IndexError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{name}: {path} is not laid out like an autoencoder of {base} "
            f"({' '.join(str(error).split())[:200]}); download it again or mend the catalogue"
        ) from error
    return network


def _from_file(file: Path, base: Base, target: Target) -> Any:
    header, tensors = read_header(file), read_tensors(file, target.dtype)
    if "encoder.conv_norm_out.weight" in header.shapes:
        return target.network(AutoencoderKL, _config(header, base), tensors)
    header = Header({_prefixed(key): shape for key, shape in header.shapes.items()}, {})
    config = vae_config(header, base)
    prefixed = {_prefixed(key): tensor for key, tensor in tensors.items()}
    return target.network(AutoencoderKL, config, convert_ldm_vae_checkpoint(prefixed, config))


def _prefixed(key: str) -> str:
    return key if key.startswith(VAE) else VAE + key


def _config(header: Header, base: Base) -> dict[str, Any]:
    """Of diffusers' own layout; the shapes tell all that differs."""
    shapes = header.shapes
    levels = count(shapes, "encoder.down_blocks.")
    return {
        "block_out_channels": [
            shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(levels)
        ],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": count(shapes, "encoder.down_blocks.0.resnets."),
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "scaling_factor": SCALING[base],
    }
