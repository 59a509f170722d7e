"""What first use downloads of the hub, and what only a start may."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save as safetensors

from afterdetail.models.catalogue import built_in
from afterdetail.models.store import locate

if TYPE_CHECKING:
    from tests.models.hub import Hub, Machine

HUB = runpy.run_path(str(Path(__file__).with_name("hub.py")))
FOLDER, terminal = HUB["FOLDER"], HUB["terminal"]
USE = """
import json, sys
from afterdetail.errors import ModelUnavailable
from afterdetail.models.catalogue import load_catalogue
from afterdetail.models.choose import Choice, LoraUse
from afterdetail.models.store import locate
from afterdetail.studio import make_studio

catalogue = load_catalogue(sys.argv[1])
names = "thing", "tan", "word", "fine", "better"
thing, tan, word, fine, better = (catalogue.find(None, name) for name in names)

def is_here(spec):
    try:
        return bool(locate(spec))
    except ModelUnavailable:
        return False

def here():
    return [spec.name for spec in (thing, tan, word, fine, better) if is_here(spec)]

def refused(choice):
    try:
        serving.pool.load(choice)
    except ModelUnavailable as error:
        return str(error)

studio, serving = make_studio("cpu"), make_studio("cpu", downloads=False)
stages = [here()]
studio.load(catalogue)
stages.append(here())
choices = [
    Choice(thing, loras=frozenset({LoraUse(tan, 1.0)})),
    Choice(thing, embeddings=(word,)),
    Choice(catalogue.find(None, "large"), refiner=fine),
]
answers = [refused(choice) for choice in choices]
stages.append(here())
for choice in choices:
    studio.pool.load(choice)
    stages.append(here())
for each in studio, serving:
    each.close()
print(json.dumps({"stages": stages, "refused": answers}))
"""
OTHERS = """
sizes = ["128x128"]

[[model]]
name = "large"
kind = "checkpoint"
base = "sdxl"
package = "models/tiny-xl"

[[model]]
name = "fine"
kind = "refiner"
base = "sdxl"
hub = "someone/things"
file = "fine.safetensors"
vae = "better"

[[model]]
name = "better"
kind = "vae"
base = "sdxl"
hub = "someone/things"
file = "better.safetensors"

[[model]]
name = "tan"
kind = "lora"
base = "sd15"
hub = "someone/things"
file = "tan.safetensors"

[[model]]
name = "word"
kind = "embedding"
base = "sd15"
hub = "someone/things"
file = "word.safetensors"
"""


def test_first_use_downloads_where_it_may(
    machine: Machine, hub: Hub, save: Callable[[str], Any]
) -> None:
    """A start its bases, a request all that it names; a server that is up nothing."""
    tiny, tan = (locate(built_in().find(None, name)) for name in ("tiny", "tiny-tan"))
    refiner = save("refiner")
    files = (path for path in tiny.rglob("*") if path.is_file())
    hub.files |= {path.relative_to(tiny).as_posix(): path.read_bytes() for path in files}
    singles = {
        "tan.safetensors": tan.read_bytes(),
        "word.safetensors": safetensors({"emb_params": torch.ones(1, 64)}),
        "fine.safetensors": refiner.file.read_bytes(),
        "better.safetensors": safetensors(refiner.model.vae.state_dict()),
    }
    hub.files |= singles
    with terminal() as (theirs, seen):
        command = ["-c", USE, machine.catalogue(FOLDER + OTHERS)]
        process = machine.start(command, stderr=theirs)
        said, _ = process.communicate(timeout=250)
    assert process.returncode == 0, seen.decode()
    told = json.loads(said.splitlines()[-1])
    assert told["stages"] == [
        [],
        ["thing"],
        ["thing"],
        ["thing", "tan"],
        ["thing", "tan", "word"],
        ["thing", "tan", "word", "fine", "better"],
    ]
    for refusal, name in zip(told["refused"], ["tan", "word", "fine"], strict=True):
        assert refusal.endswith(f"get it with: afterdetail models pull {name}")
    for file in singles:
        assert file.encode() in seen, "each has its bar"
