"""What an objective does, in numbers: its response to reward, probability and clock, or its drift;
its lives; whether it uses its clock.

Shape legend: ``K`` shares of life, ``R`` rewards or ratios, ``P`` probabilities, ``A`` advantages.
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
from discovery.evaluation import clock_use, figures, figures_drift, horizons, table
from discovery.inner.build import is_mirror, make_environment
from discovery.inner.lifetime import Life, Task, World, advance, birth
from discovery.requests import InspectConfig
from discovery.runs import folders
from discovery.runs.ending import draw_curriculum
from discovery.runs.folders import check_writable
from learned_objectives import descent
from learned_objectives.base import Experience, Learner, Network, Time
from learned_objectives.clock import BASE_STEPS
from learned_objectives.library import Saved, load
from learned_objectives.mirror import DPO, PPO, Mirror
from learned_objectives.scheduled import Scheduled

TRAIL = 8
"""Steps of the trajectory that is shown to an objective."""
REWARDS = np.linspace(-1, 1, 21)
PROBABILITIES = np.array([0.05, 0.2, 0.5, 0.8, 0.95])
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

    pi_hat: Float[np.ndarray, "K R P"]
    """By share of life, reward and probability; it acts as minus an advantage."""


class Drifts(NamedTuple):
    """A drift and its slope, for those who learn by one."""

    drift: Float[np.ndarray, "K R A"]
    """D, by share of life, ratio and advantage."""
    slope: Float[np.ndarray, "K R A"]
    """dD/dp; ``A - dD/dp`` is what the policy is pushed by."""


class Along(NamedTuple):
    """Means over agents along lives of one horizon, ``[N]`` by update."""

    entropy: Float[np.ndarray, " N"]
    """Of the policy before the update, in nats."""
    change: Float[np.ndarray, " N"]
    """KL of the policy before the update from the one after it, in nats."""
    reward: Float[np.ndarray, " N"]
    """Per step of the rollout."""


def respond(world: World, theta: Any, hyper: Any, horizon: int) -> Response:
    """Show the objective a short episode whose last step is rewarded, at several times of life.

    The action of the last step had the given probability, all others a uniform one; predictions
    are uniform. Everything goes through the protocol, so any objective that says a ``pi_hat`` can
    be asked.

    Args:
      world: for its objective and sizes.
      theta: the objective's parameters.
      hyper: numbers of an agent's update.
      horizon: the N that is told.

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

    def said(share: Array, reward: Array, probability: Array) -> Array:
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
        time = _time(world, share, horizon)
        signals = world.objective.signals(theta, hyper, network, Learner((), ()), experience, time)
        if "pi_hat" not in signals:
            raise ConfigError("this objective says no pi_hat, which is what is drawn here")
        return signals["pi_hat"][-1, 0]

    over = jax.vmap(jax.vmap(jax.vmap(said, (None, None, 0)), (None, 0, None)), (0, None, None))
    axes = (jnp.asarray(x, jnp.float32) for x in (SHARES, REWARDS, PROBABILITIES))
    return Response(np.asarray(jax.jit(over)(*axes)))


def _time(world: World, share: Array, horizon: int) -> Time:
    """The clock of a life of so many updates, this share of it done."""
    return Time(
        # A life of N updates never sees n = N.
        n=jnp.minimum(jnp.round(share * horizon), horizon - 1).astype(jnp.int32),
        N=jnp.asarray(horizon, jnp.int32),
        unit=jnp.asarray(world.environments * world.steps / BASE_STEPS, jnp.float32),
    )


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
        time = _time(world, share, horizon)
        rule, said, numbers = world.objective, theta, hyper
        if isinstance(rule, Scheduled):
            numbers, rule, said = rule.at(theta, hyper, time), rule.rule, ()
        assert isinstance(rule, Mirror)
        return rule.drift_surface(said, numbers, ratio, advantage, time)

    return Drifts(*map(np.asarray, jax.jit(jax.vmap(at))(jnp.asarray(SHARES, jnp.float32))))


def turns(found: Drifts, advantage: float) -> Float[np.ndarray, " K"]:
    """The ratio at which a drift has taken half of the push, on the side where the policy goes.

    Args:
      found: of :func:`drifts`.
      advantage: one of :data:`ADVANTAGES`; above zero p grows, below it falls.

    Returns:
      The ratio at each share of life, the nearest to 1 at which :math:`A - dD/dp` is no more than
      half of A; NaN if there is none in :data:`RATIOS`.
    """
    column = _nearest(ADVANTAGES, advantage)
    left = 1 - found.slope[:, :, column] / advantage
    ratios = RATIOS if advantage > 0 else RATIOS[::-1]
    left = left if advantage > 0 else left[:, ::-1]
    gone = (left <= 0.5) & ((ratios - 1) * advantage > 0)
    return np.where(gone.any(axis=1), ratios[gone.argmax(axis=1)], np.nan)


def _nearest(values: np.ndarray, wanted: float) -> int:
    return int(np.argmin(np.abs(values - wanted)))


def _recorded(network: Network, outputs: dict[str, Array]) -> Network:
    """A network that puts out what was recorded."""
    return network._replace(unroll=lambda params, experience: (outputs, outputs))


def along_lives(
    world: World, theta: Any, hyper: Any, levels: Any, horizon: int, seed: int
) -> Along:
    """Live whole lives on several levels, and watch the policy at every update.

    Args:
      world: who lives where.
      theta: the objective's parameters.
      hyper: numbers of an agent's update.
      levels: leaves ``[count, ...]``.
      horizon: N.
      seed: root of every random number.

    Returns:
      Means over the agents, ``[N]``.
    """
    count = jax.tree.leaves(levels)[0].shape[0]
    keys = jax.random.split(jax.random.key(seed), count)

    def one(level: Any, key: Array) -> tuple[Array, Array, Array]:
        task = Task(level, jnp.asarray(horizon, jnp.int32))

        def step(life: Life, _: None) -> tuple[Life, tuple[Array, Array, Array]]:
            after, experience = advance(world, theta, hyper, task, life)[:2]
            old = world.network.unroll(life.learner.params, experience)[0]
            new = world.network.unroll(after.learner.params, experience)[0]
            seen = (
                world.network.entropy(old).mean(),
                world.network.kl(old, new).mean(),
                experience.reward.mean(),
            )
            return after, seen

        life = birth(world, theta, hyper, task, key)
        return jax.lax.scan(step, life, None, length=horizon)[1]

    lives = jax.jit(jax.vmap(one))(levels, keys)
    return Along(*(np.asarray(x, float).mean(axis=0) for x in lives))


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
    how = horizons.setting([saved], make_environment(request.env))
    who = horizons.enter(saved, request.env, how)
    run = Path(request.objective)
    folder = Path(request.out or (run / "figures" if run.is_dir() else f"inspect-{saved.name}"))
    check_writable(folder)
    report(f"{saved.name}: {describe(saved.card, saved.theta)}")

    middle = sorted(request.horizons)[len(request.horizons) // 2]
    draw = _drift if is_mirror(saved.objective) else _response
    pictures = draw(saved, who, middle, folder, report)

    levels = horizons.held_out(request.env, "validation", request.levels).levels
    lives = {}
    for n in sorted(set(request.horizons)):
        report(f"{request.levels} lives of {n} updates ...")
        lives[n] = along_lives(who.world, who.source, who.hyper, levels, n, request.seed)
    table.write_numbers(folder / "lives.csv", *_lives_table(lives))
    curves: Sequence[tuple[str, str, str]] = (
        ("entropy", "entropies", "entropy of the policy (nats)"),
        ("change", "changes", "change of the policy at an update, KL (nats)"),
        ("reward", "rewards", "reward per step"),
    )
    for field, name, label in curves:
        data = {n: getattr(along, field) for n, along in lives.items()}
        title = f"{saved.name} in {request.env}: {request.levels} lives of each horizon"
        figure = figures.entropies(data, ylabel=label, title=title)
        pictures.append(figures.save(figure, folder / name)[0])
    pictures += _clock(saved, request, how, folder, report)
    if (run / folders.CURRICULUM).is_file():
        report("the curriculum on which it was found ...")
        pictures.append(draw_curriculum(run, folder))
    for picture in pictures:
        report(f"picture: {picture}")
    return pictures


def _response(
    saved: Saved,
    who: horizons.Contestant,
    horizon: int,
    folder: Path,
    report: Callable[[str], None],
) -> list[Path]:
    """What it says of a rewarded action, as a table and a picture."""
    report(f"its response, told N = {horizon} ...")
    response = respond(who.world, who.source, who.hyper, horizon)
    table.write_numbers(folder / "response.csv", *_response_table(response, horizon))
    half = list(PROBABILITIES).index(0.5)
    figure = figures.response(
        REWARDS,
        SHARES,
        response.pi_hat[:, :, half],
        title=f"{saved.name}: the word for a rewarded action, pi(a|s) = 0.5, N = {horizon}",
    )
    return [figures.save(figure, folder / "response")[0]]


def _drift(
    saved: Saved,
    who: horizons.Contestant,
    horizon: int,
    folder: Path,
    report: Callable[[str], None],
) -> list[Path]:
    """Its drift beside PPO's and DPO's, as a table and two pictures."""
    report(f"its drift, told N = {horizon} ...")
    found = drifts(who.world, who.source, who.hyper, horizon)
    plain = PPO().hyper(clip_ratio=float(who.hyper.clip_ratio))
    beside = {
        name: drifts(replace(who.world, objective=rule), (), plain, horizon)
        for name, rule in (("PPO", PPO()), ("DPO", DPO()))
    }
    table.write_numbers(folder / "drift.csv", *_drift_table(found, beside, horizon))
    for name, each in {saved.name: found, **beside}.items():
        report(f"{name}: the push is halved at p = {_halves(each)}")

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
    chosen = range(0, len(SHARES), 2) if moves else (0,)
    pushes = {
        f"{saved.name}, n/N = {SHARES[i]:g}" if moves else saved.name: ADVANTAGES - found.slope[i]
        for i in chosen
    }
    pushes |= {name: ADVANTAGES - each.slope[0] for name, each in others.items()}
    maps = figures_drift.drift_maps(
        RATIOS, ADVANTAGES, pushes, title=f"{saved.name}: what its drift leaves of the push"
    )
    return [
        figures.save(lines, folder / "drift")[0],
        figures.save(maps, folder / "drift-map")[0],
    ]


def _halves(found: Drifts) -> str:
    """Where half of the push is gone, early and late in a life, in words."""
    told = []
    for sign in SIGNS:
        first, *_, last = (f"{p:.2f}" if np.isfinite(p) else "none" for p in turns(found, sign))
        told.append(f"{first if first == last else f'{first} to {last}'} (A = {sign:g})")
    return ", ".join(told)


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
    if saved.name not in study.told or _is_blind(saved, request.env, how):
        report(f"no clock to lie about: an update of {saved.name} reads none")
        return []
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


def _response_table(response: Response, horizon: int) -> tuple[list[str], list[Line]]:
    lines: list[Line] = [
        (horizon, t, r, p, response.pi_hat[i, j, k].item())
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
