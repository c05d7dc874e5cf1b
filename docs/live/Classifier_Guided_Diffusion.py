"""What the live figure of the classifier guidance post computes with: the mixture, the schedule, and stops of DDIM."""

from snippets.data.toy2d import toy2d
from snippets.ddpm import NoiseSchedule, ddim_levels, linear_beta


def tables():
    toy, schedule = toy2d(), NoiseSchedule(linear_beta())
    found = {name: getattr(toy, name).tolist() for name in ("weights", "means", "deviations")}
    return found | {"alpha_bar": schedule.alpha_bar.tolist(), "levels": ddim_levels(schedule, 50)}
