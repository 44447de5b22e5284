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
# # LPO
#
# *Discovered Policy Optimisation* (Lu et al., NeurIPS 2022): an agent maximises
# $p A - D(p, A)$, where $p = \pi/\pi_{old}$ is the ratio of an action's probabilities under the
# new and the old policy, $A$ its advantage, and $D$ a **drift**, which holds the policy back. PPO's
# clip is one drift. LPO's is a small network, found by evolution; DPO is a closed form that was
# read off an LPO.
#
# The figures are drawn from the tables in `discovery/evaluation/tables` and from the `lpo` that
# comes with Kairos; nothing is searched or played.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import os
from textwrap import fill

import jax.numpy as jnp
import numpy as np

from discovery import load
from discovery.evaluation import claim_5, stored
from discovery.evaluation.figures_drift import drift_lines, drift_maps
from discovery.evaluation.papers import find
from learned_objectives.base import Time

QUICK = bool(os.environ.get("KAIROS_QUICK"))  # one search seed, for tests
print("sizes:", "quick" if QUICK else "full")

# %% [markdown]
# ## What a drift leaves of the push
#
# Along $p$ the policy is pushed by $A - \partial D/\partial p$: with no drift by $A$ itself, and
# where it is 0 the agent has no reason to go further. The paper reads two features off its LPO:
# for $A < 0$ it *rolls back* (pushes the other way) once an action has become likelier although it
# was bad, and for $A > 0$ it stops *earlier or later* than PPO's clip at $p = 1.2$, by how good the
# action was.
#
# The `lpo` that comes with Kairos was evolved on Catch, from PPO's clip, by one search of 400
# generations; it is one example and no sample.

# %%
ratio, shares = np.geomspace(0.25, 4, 121), np.array([0.0])


def drift_of(name, advantage):
    """D and its slope along p, under PPO's clip at 0.2."""
    saved = load(name)
    time = Time(n=jnp.asarray(0.0), N=jnp.asarray(24.0), unit=jnp.asarray(0.1))
    log_ratio = jnp.log(jnp.asarray(ratio, jnp.float32))
    advantages = jnp.full_like(log_ratio, advantage)
    objective, hyper = saved.objective, saved.objective.hyper()
    return objective.drift_surface(saved.theta, hyper, log_ratio, advantages, time)


found = {}
for advantage in (1.0, -1.0):
    drift, slope = drift_of("lpo", advantage)
    found[advantage] = (np.asarray(drift)[None], np.asarray(slope)[None])
beside = {
    name.upper(): {a: tuple(map(np.asarray, drift_of(name, a))) for a in (1.0, -1.0)}
    for name in ("ppo", "dpo")
}
drift_lines(ratio, shares, found, beside, name="LPO, as shipped")

# %% [markdown]
# The same over all advantages, from the tables of claim 5: PPO and DPO, and the LPOs of claim 4's
# searches, as far as they are there (the mean over search seeds).

# %%
surfaces = [
    row
    for row in stored.rows("claim-5")["drifts"]
    if row.group == "constant rate" and row.share == 0.0
]
advantages = np.array(sorted({row.advantage for row in surfaces}))
maps, counts = {}, {}
for name in ("PPO", "DPO", "LPO"):
    seeds = sorted({row.seed for row in surfaces if row.cell == name})
    if not seeds:
        print(f"{name}: no numbers yet; kairos reproduce claim-4 claim-5 makes them")
        continue
    pushes = np.mean(
        [
            [
                next(r.pushes for r in surfaces if (r.cell, r.seed, r.advantage) == (name, seed, a))
                for a in advantages
            ]
            for seed in seeds
        ],
        axis=0,
    ).T
    maps[f"{name} ({len(seeds)} search seeds)" if name == "LPO" else name] = (
        np.zeros_like(pushes),  # the drift itself is not drawn
        advantages - pushes,
    )
drift_maps(claim_5.RATIOS, advantages, maps)

# %% [markdown]
# ## Is it better than PPO where it was not found?
#
# The paper plays Brax and MinAtar games that LPO was not found on. Claim 4 plays CartPole, Asterix
# and Breakout with drifts found on Catch, at a CPU's size; beside TA-LPO of the next paper.


# %%
def told(claim):
    """Print what is tested and what was found; the figure, if there are numbers."""
    tables = stored.rows(claim)
    if QUICK:
        tables = {name: [r for r in rows if r.seed == 0] for name, rows in tables.items()}
    print(fill(f"Tested: {find(claim).claim}.", 100))
    found = stored.conclusion(claim, tables)
    if found is None:
        print(f"No numbers yet. They are made with: kairos reproduce {claim}")
        return None
    for name, fact in found.facts.items():
        print(fill(f"{name}: {fact}", 100, subsequent_indent="  "))
    for paragraph in found.text.split("\n\n"):
        print(f"\n{fill(paragraph, 100)}")
    return found.draw()


told("claim-4")
