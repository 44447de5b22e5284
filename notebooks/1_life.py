# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # An agent's life
#
# Kairos searches for *objectives*: rules that turn what an agent has met into a change of its
# parameters. An objective is judged by whole lives, so here is one life, from birth to score.
#
# | word | meaning |
# |---|---|
# | **environment** | where the agent acts; a **level** is one setting of it |
# | **update** | the agent acts for some steps (a *rollout*), then its parameters are changed once |
# | **horizon** $N$ | how many updates this agent is given; $n$ of them are done |
# | **objective** | the rule of the update; it may see the **clock** $(n, N)$, the agent never |
# | **score** | mean return of fresh episodes after an update; a return is the sum of rewards |

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import os

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import envs
from discovery import train
from discovery.evaluation.figures import COLOURS, life_curve
from discovery.evaluation.figures_level import grid_level
from discovery.requests import TrainConfig
from learned_objectives.base import Time
from learned_objectives.clock import features

QUICK = bool(os.environ.get("KAIROS_QUICK"))  # tiny sizes, for tests
print("sizes:", "quick" if QUICK else "full")

# %% [markdown]
# ## Birth, updates, score
#
# One call lives one life. The objective is `ta-lpg`, which comes with Kairos: its update is written
# by a recurrent network that was evolved on grid worlds like this one, and it sees the clock. The
# agent is a table: for every state, one number per action, all zero at birth, so that it begins
# with equal probabilities.


# %%
STEPS = 1280 if QUICK else 320  # of the environment, in an update
OBJECTIVE = "a2c" if QUICK else "ta-lpg"


def live(horizon, seed=1):
    """The life of one agent; what it writes is kept in a folder of its own."""
    request = TrainConfig(
        OBJECTIVE,
        env="small",
        horizon=horizon,
        seed=seed,
        out=f"runs/life-{horizon}",
        overwrite=True,
    )
    return train(request, report=lambda line: None)


HORIZONS = (3, 6) if QUICK else (10, 50, 250)
lives = {horizon: live(horizon) for horizon in HORIZONS}
life = lives[HORIZONS[1]]

for n, sampled, greedy in list(zip(*life.curve[:3], strict=True))[:: max(1, HORIZONS[1] // 5)]:
    print(f"{n:3d} updates done: return {sampled:+.2f}, {greedy:+.2f} with the likeliest actions")

# %% [markdown]
# The level it lived in, seen from above. An object that is collected gives its reward; it may come
# back later, and it may end the episode. The return of a policy that acts at random and the best
# return that is possible are computed exactly, by dynamic programming over all states.

# %%
environment = envs.make("small")
random, optimal = map(float, environment.bounds(life.level))
print(f"random actions: {random:+.2f}, best possible: {optimal:+.2f} a return")
print(f"an episode is cut after {int(life.level.max_steps_in_episode)} steps")
grid_level(life.level, title="the level")

# %% [markdown]
# What the agent has learned at the end of its life: in every cell, the likeliest action while all
# objects are there (an arrow; a dot is *stay*). Where it hardly ever was, nothing was learned.

# %%
cells = life.level.walls.size
everything = sum(1 << slot for slot, used in enumerate(np.asarray(life.level.used)) if used)
[table] = jax.tree.leaves(life.params["policy"])  # a row of logits for every state
rows = np.asarray(table)[everything * cells : (everything + 1) * cells]
grid_level(life.level, rows.argmax(axis=1), title=f"after {HORIZONS[1]} updates")

# %% [markdown]
# ## The learning
#
# *Sampled* actions are drawn from the policy, *greedy* ones are its likeliest. The entropy tells
# how undecided the policy is: the logarithm of 5 actions, 1.61 nats, at birth.

# %%
curve = life.curve
flat = np.ones(len(curve.updates))
life_curve(
    curve.updates,
    {
        "return of an episode": {
            "sampled": curve.sampled,
            "greedy": curve.greedy,
            "random": random * flat,
            "optimal": optimal * flat,
        },
        "entropy (nats)": {"sampled": curve.metrics["entropy"]},
    },
    title=f"one life of {HORIZONS[1]} updates, seed 1",
    steps_per_update=STEPS,
)

# %% [markdown]
# ## The clock
#
# What `ta-lpg` sees of time: the share of life that is done, $t = n/N$, and the logarithm of the
# horizon, counted in updates of 1,280 environment steps so that agents with other batches compare.
# Nine more forms of the clock are in `learned_objectives/clock.py`.

# %%
for N in HORIZONS:
    for n in (0, N // 2, N - 1):
        time = Time(jnp.asarray(n), jnp.asarray(N), jnp.asarray(STEPS / 1280))
        share, log = features("fraction_log", time, jnp.float32)
        print(f"N = {N:3d}, n = {n:3d}: t = {share:.2f}, ln N' = {log:+.2f}")

# %% [markdown]
# ## One agent, several horizons
#
# The same agent in the same level, born with the same luck, told that it has more or less time. The
# first update is already another one if the objective makes anything of the horizon. This is one
# agent in one level, so it shows how a life looks and proves nothing; averages over many levels,
# with intervals, are in the next but one notebook.

# %%
figure = Figure(figsize=(9, 3.2), layout="constrained")
left, right = figure.subplots(1, 2)
for (horizon, each), colour, marker in zip(lives.items(), COLOURS, "os^", strict=False):
    look = {"color": colour, "marker": marker, "markevery": 0.12, "label": f"N = {horizon}"}
    left.plot(each.curve.updates, each.curve.sampled, **look)
    right.plot(each.curve.updates, each.curve.metrics["entropy"], **look)
left.axhline(optimal, color="0.4", linewidth=1, linestyle=":", label="optimal")
left.set_ylabel("return of an episode, sampled actions")
right.set_ylabel("entropy of the policy (nats)")
for axes in (left, right):
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"updates done (one is {STEPS} environment steps)")
    axes.grid(alpha=0.3)
figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
figure

# %% [markdown]
# The *normalised score* is 0 for random actions and 1 for optimal ones; it is what tables and
# figures of grid worlds show. A score is the mean of only 16 episodes, in which an object comes
# back by chance: luck may put it above what is best *on average*.

# %%
for horizon, each in lives.items():
    score = (each.curve.sampled[-1] - random) / (optimal - random)
    print(f"N = {horizon:3d}: normalised score {score:.2f} at the end of this one life")
