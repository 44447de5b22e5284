"""What an objective does, in numbers: its response to reward, probability and clock, or its drift;
its lives; its schedule; whether it uses its clock.

Shape legend: ``H`` horizons, ``K`` shares of life, ``R`` rewards or ratios, ``P`` probabilities,
``A`` advantages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from discovery.config import ConfigError, check_seed, check_sizes
from discovery.evaluation import (
    clock_use,
    figures,
    figures_drift,
    figures_response,
    figures_schedule,
    horizons,
    schedule,
    slopes,
    table,
)
from discovery.evaluation.schedule import Along, along_lives, told
from discovery.inner.build import is_mirror, make_environment
from discovery.inner.lifetime import World
from discovery.report.page import renew
from discovery.requests import InspectConfig
from discovery.runs import folders
from discovery.runs.ending import draw_curriculum
from discovery.runs.folders import check_writable
from learned_objectives import descent
from learned_objectives.base import Experience, Learner, Network
from learned_objectives.library import Saved, load
from learned_objectives.mirror import DPO, PPO, Mirror

TRAIL = 8
"""Steps of the trajectory that is shown to an objective."""
REWARDS = np.linspace(-1, 1, 21)
PROBABILITIES = np.linspace(0.05, 0.95, 19)
SHARES = np.array([0.0, 0.25, 0.5, 0.75, 0.95])
ACTIONS = 5
RATIOS = np.geomspace(0.25, 4, 121)
"""``p``, with 1 in the middle."""
ADVANTAGES = np.linspace(-2, 2, 17)
SIGNS = (1.0, -1.0)
"""Advantages for which a drift is drawn as lines."""
Line: TypeAlias = tuple[int | float, ...]
"""Of a table."""


class Response(NamedTuple):
    """What an objective says of the step that was rewarded."""

    pi_hat: Float[np.ndarray, "H K R P"]
    """By horizon, share of life, reward and probability; it acts as minus an advantage."""


class Drifts(NamedTuple):
    """A drift and its slope, for those who learn by one."""

    drift: Float[np.ndarray, "K R A"]
    """D, by share of life, ratio and advantage."""
    slope: Float[np.ndarray, "K R A"]
    """dD/dp; ``A - dD/dp`` is what the policy is pushed by."""


def respond(world: World, theta: Any, hyper: Any, horizons: Sequence[int]) -> Response:
    """Show the objective a short episode whose last step is rewarded, at several times of life.

    The action of the last step had the given probability, all others a uniform one; predictions
    are uniform. Everything goes through the protocol, so any objective that says a ``pi_hat`` can
    be asked.

    Args:
      world: for its objective and sizes.
      theta: the objective's parameters.
      hyper: numbers of an agent's update.
      horizons: each N that is told.

    Returns:
      The response.

    Raises:
      ConfigError: the objective has no such signal.
    """
    heads = world.objective.heads
    actions = world.env.spec.num_actions or ACTIONS
    fixed: dict[str, Array] = {
        name: jnp.zeros((TRAIL, 1, actions if head.size == "actions" else head.size))
        for name, head in heads.items()
    }

    def said(horizon: Array, share: Array, reward: Array, probability: Array) -> Array:
        other = (1 - probability) / (actions - 1)
        logits = jnp.full(actions, jnp.log(other)).at[0].set(jnp.log(probability))
        outputs = {**fixed, "policy": fixed["policy"].at[-1, 0].set(logits)}
        last = jnp.arange(TRAIL)[:, None] == TRAIL - 1
        experience = Experience(
            observation=(),
            action=jnp.zeros((TRAIL, 1), jnp.int32),
            reward=jnp.where(last, reward, 0.0),
            terminated=last,
            truncated=jnp.zeros_like(last),
            next_observation=(),
            behaviour=outputs,
        )
        network = _recorded(world.network, outputs)
        time = told(world, share, horizon)
        signals = world.objective.signals(theta, hyper, network, Learner((), ()), experience, time)
        if "pi_hat" not in signals:
            raise ConfigError("this objective says no pi_hat, which is what is drawn here")
        return signals["pi_hat"][-1, 0]

    over: Callable[..., Array] = said
    for axis in reversed(range(4)):
        over = jax.vmap(over, tuple(0 if i == axis else None for i in range(4)))
    axes = (np.asarray(horizons), SHARES, REWARDS, PROBABILITIES)
    return Response(np.asarray(jax.jit(over)(*(jnp.asarray(x, jnp.float32) for x in axes))))


def drifts(world: World, theta: Any, hyper: Any, horizon: int) -> Drifts:
    """The drift of an objective of mirror learning at several times of life.

    Args:
      world: for its objective and sizes; see :func:`discovery.inner.build.is_mirror`.
      theta: the objective's parameters.
      hyper: numbers of an agent's update.
      horizon: the N that is told.

    Returns:
      The drift at :data:`SHARES`, :data:`RATIOS` and :data:`ADVANTAGES`.
    """
    ratio, advantage = (
        jnp.asarray(x, jnp.float32)
        for x in np.meshgrid(np.log(RATIOS), ADVANTAGES, indexing="ij", sparse=False)
    )

    def at(share: Array) -> tuple[Array, Array]:
        time = told(world, share, horizon)
        return schedule.surface(world.objective, theta, hyper, ratio, advantage, time)

    return Drifts(*map(np.asarray, jax.jit(jax.vmap(at))(jnp.asarray(SHARES, jnp.float32))))


def _nearest(values: np.ndarray, wanted: float) -> int:
    return int(np.argmin(np.abs(values - wanted)))


def _recorded(network: Network, outputs: dict[str, Array]) -> Network:
    """A network that puts out what was recorded."""
    return network._replace(unroll=lambda params, experience: (outputs, outputs))


def inspect(request: InspectConfig, report: Callable[[str], None] = print) -> list[Path]:
    """What an objective does over a life, as tables and pictures.

    Args:
      request: which objective, and where it is watched.
      report: told what happens, a line at a time.

    Returns:
      The pictures.

    Raises:
      ConfigError: the objective cannot be used in that environment.
    """
    horizons.check_horizons(request.horizons)
    check_sizes(levels=request.levels)
    check_seed(request.seed)
    saved = load(request.objective)
    request = replace(request, env=request.env or saved.card.get("config", {}).get("env", "small"))
    how = horizons.setting([saved], make_environment(request.env))
    who = horizons.enter(saved, request.env, how)
    run = Path(request.objective)
    folder = Path(request.out or (run / "figures" if run.is_dir() else f"inspect-{saved.name}"))
    check_writable(folder)
    report(f"{saved.name}: {describe(saved.card, saved.theta)}")

    ns = sorted(set(request.horizons))
    draw = _drift if is_mirror(saved.objective) else _response
    pictures = draw(saved, who, ns, folder, report)

    levels = horizons.held_out(request.env, "validation", request.levels).levels
    lives = {}
    for n in ns:
        report(f"{request.levels} lives of {n} updates ...")
        along = along_lives(who.world, who.source, who.hyper, levels, n, request.seed)
        lives[n] = Along(*(values.mean(axis=0) for values in along))
    table.write_numbers(folder / "lives.csv", *_lives_table(lives))
    curves: Sequence[tuple[str, str, str]] = (
        ("entropy", "entropies", "entropy of the policy (nats)"),
        ("change", "changes", "change of the policy at an update, KL (nats)"),
        ("norm", "norms", "norm of what an update adds to the policy"),
        ("reward", "rewards", "reward per step"),
    )
    for field, name, label in curves:
        data = {n: getattr(along, field) for n, along in lives.items()}
        title = f"{saved.name} in {request.env}: {request.levels} lives of each horizon"
        figure = figures.entropies(data, ylabel=label, title=title)
        pictures.append(figures.save(figure, folder / name)[0])
    if not _is_told(saved, who, request.env, how):
        report(f"no clock to lie about: an update of {saved.name} reads none")
    else:
        pictures += _schedule(saved, request, how, levels, folder, report)
        pictures += _clock(saved, request, how, folder, report)
    if (run / folders.CURRICULUM).is_file():
        report("the curriculum on which it was found ...")
        pictures.append(draw_curriculum(run, folder))
    for picture in pictures:
        report(f"picture: {picture}")
    if folder == run / folders.FIGURES:
        renew(run, report)
    return pictures


def _response(
    saved: Saved,
    who: horizons.Contestant,
    told: Sequence[int],
    folder: Path,
    report: Callable[[str], None],
) -> list[Path]:
    """What it says of a rewarded action, as a table and a picture."""
    report(f"its response, told N = {', '.join(map(str, told))} ...")
    response = respond(who.world, who.source, who.hyper, told)
    table.write_numbers(folder / "response.csv", *_response_table(response, told))
    figure = figures_response.responses(
        REWARDS,
        PROBABILITIES,
        SHARES,
        np.asarray(told),
        response.pi_hat,
        title=f"{saved.name}: the word for a rewarded action",
    )
    return [figures.save(figure, folder / "response")[0]]


def _drift(
    saved: Saved,
    who: horizons.Contestant,
    told: Sequence[int],
    folder: Path,
    report: Callable[[str], None],
) -> list[Path]:
    """Its drift beside PPO's and DPO's, as a table and pictures, told the middle horizon."""
    horizon = told[len(told) // 2]
    report(f"its drift, told N = {horizon} ...")
    found = drifts(who.world, who.source, who.hyper, horizon)
    plain = PPO().hyper(clip_ratio=float(who.hyper.clip_ratio))
    rules = {
        name: (replace(who.world, objective=rule), (), plain)
        for name, rule in (("PPO", PPO()), ("DPO", DPO()))
    }
    beside = {name: drifts(*rule, horizon) for name, rule in rules.items()}
    table.write_numbers(folder / "drift.csv", *_drift_table(found, beside, horizon))

    moves = np.ptp(found.drift, axis=0).max() > 0
    others = {n: each for n, each in beside.items() if not np.array_equal(each.drift, found.drift)}
    columns = {sign: _nearest(ADVANTAGES, sign) for sign in SIGNS}
    times = slice(None) if moves else slice(1)
    lines = figures_drift.drift_lines(
        RATIOS,
        SHARES[times],
        {sign: (found.drift[times, :, i], found.slope[times, :, i]) for sign, i in columns.items()},
        {
            name: {sign: (each.drift[0, :, i], each.slope[0, :, i]) for sign, i in columns.items()}
            for name, each in others.items()
        },
        name=saved.name,
        title=f"{saved.name}: its drift{f', N = {horizon}' if moves else ', at any time'}",
    )
    pictures = [figures.save(lines, folder / "drift")[0]]
    chosen = range(0, len(SHARES), 2) if moves else (0,)
    maps = {
        f"{saved.name}, n/N = {SHARES[i]:g}" if moves else saved.name: (
            found.drift[i],
            found.slope[i],
        )
        for i in chosen
    }
    maps |= {name: (each.drift[0], each.slope[0]) for name, each in others.items()}
    for pushes, name, what in (
        (False, "drift-surface", "its drift"),
        (True, "drift-map", "what its drift leaves of the push"),
    ):
        figure = figures_drift.drift_maps(
            RATIOS, ADVANTAGES, maps, pushes=pushes, title=f"{saved.name}: {what}"
        )
        pictures.append(figures.save(figure, folder / name)[0])
    return pictures + _turns(saved, who, rules, horizon, folder, report)


def _turns(
    saved: Saved,
    who: horizons.Contestant,
    beside: dict[str, tuple[World, Any, Any]],
    horizon: int,
    folder: Path,
    report: Callable[[str], None],
) -> list[Path]:
    """Where drifts turn the policy away, as a table and a picture."""
    shares = slopes.shares(horizon)
    rules = {saved.name: (who.world, who.source, who.hyper), **beside}
    found = {
        name: {sign: schedule.turns(*rule, horizon, sign, shares) for sign in SIGNS}
        for name, rule in rules.items()
    }
    for name, by_sign in found.items():
        told = [f"{_ends(by_sign[sign].half)} (A = {sign:g})" for sign in SIGNS]
        report(f"{name}: the push is halved at p = {', '.join(told)}")
        for sign in SIGNS:
            if np.isfinite(by_sign[sign].back).any():
                report(
                    f"{name}: it points back past p = {_ends(by_sign[sign].back)} (A = {sign:g})"
                )
    lines: list[Line] = [
        (
            horizon,
            share,
            sign,
            *(float(ratios[i]) for by_sign in found.values() for ratios in by_sign[sign]),
        )
        for sign in SIGNS
        for i, share in enumerate(shares.tolist())
    ]
    header = ["horizon", "share", "advantage", *schedule.Turns._fields]
    header += [f"{name.lower()}_{field}" for name in beside for field in schedule.Turns._fields]
    table.write_numbers(folder / "turns.csv", header, lines)
    mine = found.pop(saved.name)
    figure = figures_drift.turn_lines(
        shares,
        {sign: (mine[sign].half, mine[sign].back) for sign in SIGNS},
        {n: {sign: by[sign].half[0].item() for sign in SIGNS} for n, by in found.items()},
        slopes.REACH,
        name=saved.name,
        title=f"{saved.name}: where its drift turns the policy away, N = {horizon}",
    )
    return [figures.save(figure, folder / "turns")[0]]


def _ends(ratios: np.ndarray) -> str:
    """The first and the last of ratios along a life, in words."""
    first, *_, last = (f"{p:.2f}" if np.isfinite(p) else "none" for p in ratios)
    return first if first == last else f"{first} to {last}"


def _is_told(saved: Saved, who: horizons.Contestant, env: str, how: horizons.Setting) -> bool:
    """Whether it reads a clock that could say something else."""
    reads = clock_use.reads_clock(who.world, who.source, who.hyper)
    return reads and not _is_blind(saved, env, how)


def _schedule(
    saved: Saved,
    request: InspectConfig,
    how: horizons.Setting,
    levels: Any,
    folder: Path,
    report: Callable[[str], None],
) -> list[Path]:
    """What one update does when only the time it is told is moved, beside its own start."""
    report("one update, told other times ...")
    lines: list[Line] = []
    drawn: dict[str, dict[int, figures_schedule.Change]] = {}
    for each in (saved, *clock_use.initialised(saved.objective, saved.name, 1)):
        who = horizons.enter(each, request.env, how)
        drawn[each.name] = {}
        for n in sorted(set(request.horizons)):
            found = schedule.moved(who.world, who.source, who.hyper, levels, n, request.seed)
            drawn[each.name][n] = figures_schedule.Change(found.shares, *found.mean())
            if each is saved:
                lines += _moved_lines(found, n)
    for n, change in drawn[saved.name].items():
        slope = slopes.slope(change.shares, change.entropy)
        null = slopes.slope(change.shares, list(drawn.values())[1][n].entropy)
        report(
            f"N = {n}: slope of the change of entropy over the share of life told {slope:+.3g} "
            f"(untrained {null:+.3g})"
        )
    table.write_numbers(
        folder / "schedule.csv", ["horizon", "age", "share", "entropy", "kl"], lines
    )
    title = f"{saved.name} in {request.env}: one update, told other times"
    return [figures.save(figures_schedule.changes(drawn, title=title), folder / "schedule")[0]]


def _moved_lines(found: schedule.Moved, horizon: int) -> list[Line]:
    """Means over levels."""
    entropy, kl = found.by_age()
    return [
        (horizon, int(age), share, entropy[i, j].item(), kl[i, j].item())
        for i, age in enumerate(found.ages)
        for j, share in enumerate(found.shares.tolist())
    ]


def _clock(
    saved: Saved,
    request: InspectConfig,
    how: horizons.Setting,
    folder: Path,
    report: Callable[[Any], None],
) -> list[Path]:
    """What it loses under false clocks and how its words follow the clock, beside its own start."""
    saved, *nulls = horizons.named_apart([saved, *(load(name) for name in request.nulls)])
    study = clock_use.study([saved], nulls, request.env, how)
    levels = horizons.held_out(request.env, "validation", request.levels)
    rows: list[table.Row] = []
    for each in study.saved:
        rows += clock_use.losses(
            each,
            request.env,
            how,
            levels,
            request.horizons,
            (request.seed,),
            report=horizons.narrator(report),
            # Every device gets a group, and none lives for nothing.
            group=min(horizons.GROUP, -(-request.levels // jax.device_count())),
        )
    if is_mirror(saved.objective):
        # What it says of an advantage knows no time; its drift, drawn apart, may.
        others = [other.name for other in study.saved if other.name != saved.name]
        uses = clock_use.summarise(rows, nulls=others, horizons=request.horizons)
        report(table.render_clock_uses(uses, ": score lost when told a false clock"))
    else:
        uses = clock_use.conclude(
            study, rows, request.env, how, levels.levels, request.horizons, request.seed, report
        )
    table.write_clock_uses(folder / "clock.csv", uses)
    title = f"{saved.name} in {request.env}: {request.levels} lives of each horizon"
    return [figures.save(figures.clock_use(uses, title=title), folder / "clock")[0]]


def _is_blind(saved: Saved, env: str, how: horizons.Setting) -> bool:
    """Whether a rule of mirror learning reads the time for rates alone that do not follow it."""
    rule = saved.objective
    if not isinstance(rule, Mirror) or getattr(rule, "clock", "none") != "none":
        return False
    return bool(horizons.enter(saved, env, how).hyper.anneal == 0)


def describe(card: dict[str, Any], theta: Any) -> str:
    """An objective in a line."""
    size = sum(leaf.size for leaf in jax.tree.leaves(theta))
    if not size:
        return "hand-written, nothing learned"
    trained = card.get("config", {})
    where = f", trained in {trained['env']}" if "env" in trained else ""
    return f"{size:,} parameters{where}, norm {float(descent.norm(theta)):.2f}"


def _response_table(response: Response, told: Sequence[int]) -> tuple[list[str], list[Line]]:
    lines: list[Line] = [
        (horizon, t, r, p, response.pi_hat[h, i, j, k].item())
        for h, horizon in enumerate(told)
        for i, t in enumerate(SHARES.tolist())
        for j, r in enumerate(REWARDS.tolist())
        for k, p in enumerate(PROBABILITIES.tolist())
    ]
    return ["horizon", "share", "reward", "probability", "pi_hat"], lines


def _drift_table(
    found: Drifts, beside: dict[str, Drifts], horizon: int
) -> tuple[list[str], list[Line]]:
    header = ["horizon", "share", "ratio", "advantage", "drift", "slope"]
    header += [f"{name.lower()}_{field}" for name in beside for field in Drifts._fields]
    each = (found, *beside.values())
    lines: list[Line] = [
        (horizon, share, ratio, advantage, *(float(x[k, i, j]) for of in each for x in of))
        for k, share in enumerate(SHARES.tolist())
        for i, ratio in enumerate(RATIOS.tolist())
        for j, advantage in enumerate(ADVANTAGES.tolist())
    ]
    return header, lines


def _lives_table(lives: dict[int, Along]) -> tuple[list[str], list[Line]]:
    lines: list[Line] = [
        (n, update, *(float(column[update]) for column in along))
        for n, along in lives.items()
        for update in range(n)
    ]
    return ["horizon", "update", *Along._fields], lines
