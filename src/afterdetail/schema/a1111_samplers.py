"""The web UI's samplers and schedulers: how they are called there, and which of ours they are."""

from __future__ import annotations

from dataclasses import dataclass

from afterdetail.errors import InvalidInput, UnknownName
from afterdetail.options import Sampler

KARRAS = " karras"
AUTOMATIC = (None, "", "automatic", "use same scheduler")
PLAIN = ("uniform", "normal")


@dataclass(frozen=True, slots=True)
class Named:
    """A sampler of the web UI's: plain, and with Karras' noise levels, where there are both.

    ``automatic`` is the one that the web UI takes unless it is told a scheduler.
    """

    name: str
    plain: Sampler | None
    karras: Sampler | None = None
    prefers_karras: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def automatic(self) -> Sampler:
        preferred = self.karras if self.prefers_karras else self.plain
        found = preferred or self.plain or self.karras
        assert found is not None, "every sampler is one of ours"
        return found


SAMPLERS = (
    Named("DPM++ 2M", Sampler.DPM_SOLVER_MULTISTEP, Sampler.DPM_PLUS_PLUS_2M_KARRAS, True,
          ("k_dpmpp_2m",)),
    Named("DPM++ SDE", None, Sampler.DPM_PLUS_PLUS_SDE_KARRAS, True, ("k_dpmpp_sde",)),
    Named("DPM++ 2M SDE", Sampler.DPM_PLUS_PLUS_2M_SDE, Sampler.DPM_PLUS_PLUS_2M_SDE_KARRAS, False,
          ("k_dpmpp_2m_sde",)),
    Named("Euler a", Sampler.K_EULER_ANCESTRAL, aliases=("k_euler_a", "k_euler_ancestral")),
    Named("Euler", Sampler.K_EULER, aliases=("k_euler",)),
    Named("LMS", Sampler.LMS, Sampler.KLMS, aliases=("k_lms",)),
    Named("Heun", Sampler.HEUN, Sampler.K_HEUN, aliases=("k_heun",)),
    Named("DPM2", Sampler.DPM_2, Sampler.DPM_2_KARRAS, True, ("k_dpm_2",)),
    Named("DPM2 a", Sampler.DPM_2_ANCESTRAL, Sampler.DPM_2_ANCESTRAL_KARRAS, True, ("k_dpm_2_a",)),
    Named("DDIM", Sampler.DDIM, aliases=("ddim",)),
    Named("PLMS", Sampler.PNDM, aliases=("plms",)),
    Named("UniPC", Sampler.UNI_PC, aliases=("unipc",)),
    Named("LCM", Sampler.LCM, aliases=("k_lcm",)),
)  # fmt: skip
_BY_NAME = {alias.lower(): item for item in SAMPLERS for alias in (item.name, *item.aliases)}


def find_sampler(name: str, scheduler: str | None, *, field: str) -> Sampler:
    """The sampler of these names; ``DPM++ 2M Karras``, as it was once written, too.

    Raises:
        UnknownName: there is no such sampler here; ``field`` is to blame.
        InvalidInput: it has no such scheduler here.
    """
    wanted, levels = name.lower(), (scheduler or "").lower()
    if wanted.endswith(KARRAS):
        wanted, levels = wanted.removesuffix(KARRAS), "karras"
    item = _BY_NAME.get(wanted)
    if item is None:
        raise UnknownName("sampler", name, [one.name for one in SAMPLERS], field=field)
    if levels in AUTOMATIC:
        return item.automatic
    found = item.karras if levels == "karras" else item.plain if levels in PLAIN else None
    if found is None:
        offered = "Automatic" + ", Uniform" * bool(item.plain) + ", Karras" * bool(item.karras)
        message = f"{item.name} has no scheduler {scheduler or levels!r:.40} here; it has {offered}"
        raise InvalidInput("scheduler_unknown", message, field="scheduler")
    return found
