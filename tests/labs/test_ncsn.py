"""The NCSN lab reaches the bars that its issue set, and bears out what the post says of it."""

from collections import deque

import pytest
import torch
from safetensors.torch import load_file

from snippets import ncsn
from snippets.data.digits import digits
from snippets.data.toy2d import toy2d
from theme.page.pages import ROOT
from theme.page.results import load

LADDER = ncsn.geometric_ladder(6.0, 0.05, 20)
TOY = toy2d()


def network(name: str, net: torch.nn.Module) -> ncsn.ScoreNetwork:
    """A network of the lab, from its weights."""
    weights = load_file(ROOT / "docs/weights/NCSN.safetensors")
    mine = {key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)}
    model = ncsn.ScoreNetwork(net, mine["sigma"], 1.0).eval()
    model.load_state_dict(mine)
    return model


@pytest.fixture(scope="module")
def points() -> ncsn.ScoreNetwork:
    return network("points.", ncsn.PointNetwork(20))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact(x, level):
    return TOY.score(x, 1.0, float(LADDER[level[0]])).to(x.dtype)


def blob(x: torch.Tensor) -> torch.Tensor:
    return TOY.log_posterior(x, 1.0, 0.0).argmax(dim=1)


@pytest.mark.claim("ncsn-fields")
def test_one_hill_at_much_noise_and_three_at_little(points, results):
    """Where walks uphill along the learnt arrows end: from all of the picture, at little noise from near the blobs."""
    axis, found = torch.linspace(-3.7, 3.7, 15), []
    shown = [int((LADDER - sigma).abs().argmin()) for sigma in results("NCSN")["toy.shown"]]
    for level in shown:
        x = torch.cartesian_prod(axis, axis)
        if level > 10:
            x = x[(x[:, None] - TOY.means.float()).norm(dim=2).min(1).values < 0.9]
        with torch.no_grad():
            for _ in range(500):
                step = max(0.1 * float(LADDER[level]) ** 2, 0.005)
                x = x + step * points(x, torch.full((len(x),), level))
        tops = []
        while len(x):
            here = (x - x[0]).norm(dim=1) < 0.3
            tops.append(x[here].mean(0))
            x = x[~here]
        found.append(tops)
    assert [len(tops) for tops in found] == [1, 1, 3, 3] and shown == [0, 6, 11, 19]
    assert found[1][0][0] < found[0][0][0] - 0.1  # "farther left"
    for tops in found[2:]:
        assert all(min((top - mean).norm() for top in tops) < 0.3 for mean in TOY.means)


@pytest.mark.claim("ncsn-walks")
def test_naive_walks_stay_in_a_blob_and_annealed_ones_part_late():
    """With the exact score: in which blob 400 points are after a tenth of their steps, and at the end."""
    start = torch.rand(400, 2, generator=seeded(2)) * 16 - 8
    plain = lambda x, level: TOY.score(x, 1.0, 0.0).to(x.dtype)  # noqa: E731
    naive = list(ncsn.langevin(plain, 0, start, 0.005, 2000, seeded(3)))
    annealed = list(ncsn.annealed_langevin(exact, LADDER, start, 0.4 * 0.05**2, 100, seeded(3)))
    stayed = [(blob(path[199]) == blob(path[-1])).double().mean().item() for path in (naive, annealed)]
    assert stayed[0] > 0.95 and stayed[1] < 0.6, stayed


@pytest.mark.claim("ncsn-paths")
def test_paths_of_the_ode_are_smooth_and_those_of_the_sde_jagged(points):
    """The length of a path over the distance that it covers; and the start decides where a path of the ODE ends."""
    start = 6 * torch.randn(300, 2, generator=seeded(5))
    ode = list(ncsn.sample_ode(points, LADDER, start))
    runs = [list(ncsn.sample_sde(points, LADDER, start, seeded(seed), ncsn.reverse_step)) for seed in (6, 7)]
    detour = []
    for path in (ode, runs[0]):
        moves = torch.stack(path).diff(dim=0).norm(dim=2).sum(0)
        detour.append((moves / (path[-1] - path[0]).norm(dim=1)).median().item())
    assert 1 <= detour[0] < 1.2 and detour[1] > 1.5, detour
    same = (blob(runs[0][-1]) == blob(runs[1][-1])).double().mean().item()
    assert same < 0.8, same  # "the noise of the steps decides too"


@pytest.mark.claim("ncsn-long-steps")
def test_long_steps_are_to_blame_for_the_widths_and_not_the_network():
    """The exact score, with the twenty levels of the lab: five draws, by the measure of the table."""
    truth = TOY.sample(200_000, seeded(7))[0]

    def widths(x):
        near = (x[:, None].double() - TOY.means).square().sum(2).argmin(1)
        return torch.stack([x[near == k].double().std(0).mean() for k in range(3)])

    for step, low, high in ((ncsn.reverse_step, 1.08, 1.3), (ncsn.ancestral_step, 0.85, 0.97)):
        found = []
        for seed in range(5):
            start = 6 * torch.randn(4000, 2, generator=seeded(10 + seed))
            x = deque(ncsn.sample_sde(exact, LADDER, start, seeded(20 + seed), step), maxlen=1)[0]
            found.append(widths(x) / widths(truth))
        found = torch.stack(found)
        assert low < found.mean(0).min() and found.mean(0).max() < high, found
        apart = (found.mean(0) - 1).abs() / (found.std(0) / 5**0.5)
        assert apart.min() > 2.1, apart  # beyond the spread
    assert abs(0.15 / (0.15**2 + 0.05**2) ** 0.5 - 0.95) < 0.002


@pytest.mark.claim("ncsn-drawing")
def test_the_guess_is_the_average_digit_then_a_digit():
    """How far the guesses for twelve digits differ, from one another, from the average digit and from the last ones."""
    model = network("digits.", ncsn.ImageNetwork((1, 8, 8)))
    x = torch.rand(12, 64, generator=seeded(3)) * 2 - 1
    steps = list(ncsn.annealed_langevin(model, model.sigma, x, ncsn.choose_epsilon(model.sigma, 5), 5, seeded(4)))
    guesses = []
    with torch.no_grad():
        for level in range(30):
            x, levels = steps[5 * level + 4], torch.full((12,), level)
            guesses.append(x + float(model.sigma[level]) ** 2 * model(x, levels))
    guesses = torch.stack(guesses)
    spread = (guesses - guesses.mean(1, keepdim=True)).square().mean((1, 2)).sqrt()
    distance = (guesses - guesses[-1]).square().mean((1, 2)).sqrt()
    average = (guesses - digits()[0].flatten(1).mean(0)).square().mean((1, 2)).sqrt()
    assert spread[:7].max() < 0.5 * spread[-1] and average[:7].max() < 0.5 * average[-1]  # "something near the average"
    assert spread[15] > 0.85 * spread[-1] and distance[0] > distance[12] > distance[20] > distance[27] > 0


@pytest.mark.claim("ncsn-error")
def test_the_learnt_score_is_close_to_the_exact_one(results):
    error = results("NCSN")["error"]
    levels = error["levels"]
    assert len(levels) == 20 and abs(error["mean"] - sum(levels) / 20) < 1e-9
    assert 0 < error["mean"] < 0.05 and max(levels) == levels[-1] == error["last"]
    assert min(levels) == error["smallest"] and max(levels[:4]) < 0.02 < min(levels[-4:])  # "about", "several percent"


@pytest.mark.claim("ncsn-misses")
def test_arrows_are_wrong_where_no_points_are(results):
    error = results("NCSN")["error"]
    assert error["far"] > 1 > 0.1 > error["last"] > 0  # but not where no data live, as the post says
    x = TOY.sample(100_000, seeded(0))[0] + 0.05 * torch.randn(100_000, 2, generator=seeded(9))
    axis = torch.linspace(-4, 4, 161).double()
    highest = TOY.log_density(torch.cartesian_prod(axis, axis), 1.0, 0.05).max()
    outside = (TOY.log_density(x, 1.0, 0.05) < highest - torch.log(torch.tensor(100.0))).double().mean()
    assert 0.015 < outside < 0.025  # "few": about 2 %


@pytest.mark.claim("ncsn-weights")
def test_naive_langevin_gets_the_weights_wrong_and_annealed_right(results):
    """From the same starts, in the same number of steps, with the exact score and with the learnt one."""
    lab = results("NCSN")
    weights = lab["weights"]
    for score in ("exact", "learnt"):
        naive, annealed = weights[f"naive_{score}"], weights[f"annealed_{score}"]
        assert naive["off"] > 0.15 and 0 < annealed["off"] < 0.02
        for drawn in (naive, annealed):
            errors = [abs(a - b) for a, b in zip(drawn["share"], weights["true"], strict=True)]
            assert abs(max(errors) - drawn["off"]) < 1e-6
    for blob in range(3):
        assert lab["toy_reverse.widths"][blob] > 1.1 and 0.9 < lab["toy_ancestral.widths"][blob] < 0.95
        assert (
            abs(lab["toy_ode.widths"][blob] - 1) < 0.03 < 0.05 < lab["toy_reverse.widths"][blob] - 1
        )  # "nearly right"
        assert 1 <= lab["toy_truth.widths"][blob] < 1.04
    assert lab["toy_truth.widths"][2] == max(lab["toy_truth.widths"])  # the measure errs most for the narrowest
    for name in ("ode", "reverse", "ancestral"):
        assert 0 < lab[f"toy_{name}"]["off"] < 0.04, name


@pytest.mark.claim("ncsn-naive")
def test_no_setting_cures_naive_langevin(results):
    lab = results("NCSN")
    weights, naive = lab["weights"], lab["naive"]
    exact, learnt = weights["naive_exact"], weights["naive_learnt"]
    assert exact["share"][1] == max(exact["share"]) and exact["off"] > 0.2  # "the widest blob catches the most"
    assert 0.5 - learnt["share"][0] == pytest.approx(learnt["off"], abs=1e-6)  # "the heaviest gets the most too little"
    chance = [naive[name] for name in ("small_step", "large_step", "ten_times")]
    assert max(chance) - min(chance) < 0.032 and min(chance) > 0.15  # "the same but for chance"
    assert 0.1 < naive["small_square"] < min(chance)


@pytest.mark.claim("ncsn-digits")
def test_one_draw_ranks_no_sampler(results):
    """The samplers differ by less than ten draws of one sampler do on the DDPM page."""
    lab, other = results("NCSN"), results("Diffusion")
    samples = lab["samples"]
    distance = [samples[name]["frechet"] for name in ("annealed", "reverse", "ancestral", "ode")]
    draws = other["samples.ddim_50.frechet.seeds"]
    assert 0 < max(distance) - min(distance) < 1.5 * (max(draws) - min(draws))
    assert lab["frechet.floor"] == pytest.approx(other["frechet.held_out"])
    assert samples["annealed"]["frechet"] <= 3 * lab["frechet.floor"] and samples["annealed"]["confident"] >= 0.8
    for name in ("annealed", "reverse", "ancestral", "ode", "start"):
        assert samples[name]["times_floor"] == pytest.approx(samples[name]["frechet"] / lab["frechet.floor"])
    assert samples["start"]["times_floor"] > 30 and 0.5 < samples["start"]["confident"] < 1  # noise is far off


@pytest.mark.claim("ncsn-last")
def test_the_last_denoising_step_hardly_matters(results):
    lab = results("NCSN")
    samples = lab["samples"]
    gain = samples["noisy"]["frechet"] - samples["annealed"]["frechet"]
    assert 0 < gain < results("Diffusion")["samples.ddim_50.frechet.sd"]  # "less than draws differ"
    assert abs(samples["noisy"]["confident"] - samples["annealed"]["confident"]) < 0.01
    assert 0.02 < lab["digits.last_change"] < 0.03


@pytest.mark.claim("ncsn-fault-tweedie")
def test_the_wrong_last_step_is_33_times_too_long(results):
    change = results("NCSN")["digits.last_change"]
    assert 0.75 < change / 0.03 < 0.8 and abs(1 / 0.03 - 33) < 0.5


@pytest.mark.claim("ncsn-copies")
def test_samples_are_no_copies(results):
    copies = results("NCSN")["copies"]
    assert 0.8 < copies["samples"] / copies["held_out"] < 1.2
    assert 0.5 < copies["smallest"] / copies["held_out_smallest"] < 1.5


def test_the_lab_took_less_than_15_minutes_on_the_cpu():
    run = load(ROOT, "NCSN")
    assert run["device"] == "cpu" and run["seconds"] < 900
