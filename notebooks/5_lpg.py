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
# # LPG
#
# *Discovering Reinforcement Learning Algorithms* (Oh et al., NeurIPS 2020): a recurrent network
# reads an agent's rollout backwards and says how to change policy and predictions. It is found on
# small worlds and then trains agents elsewhere.
#
# Everything below is drawn from the tables in `discovery/evaluation/tables`; nothing is searched or
# played. The size is that of a CPU (a recurrent network of 16 units, 40 million environment steps a
# search), far below the published one: what holds or does not hold here, holds or does not at this
# size.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import os
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure

from discovery.evaluation import claim_1, stored
from discovery.evaluation.figures import COLOURS
from discovery.evaluation.papers import find

QUICK = bool(os.environ.get("KAIROS_QUICK"))  # one search seed, for tests
print("sizes:", "quick" if QUICK else "full")

# %% [markdown]
# ## Is it as good as A2C on worlds like those it was found on?
#
# The paper tests LPG beside A2C on its training worlds. Here both meet held-out levels at several
# horizons (updates of an agent's life). A2C's numbers (rates of policy and value, entropy weight,
# ...) are tuned with the budget that a search for LPG has: once for all horizons, or for each
# horizon apart (*oracle*). *Annealed LPG* is LPG whose agents' rates follow a schedule that is
# found together with it.

# %%
NAMES = ("LPG", "annealed LPG", "A2C constant", "A2C oracle")
tables = {
    name: [row for row in rows if row.cell in NAMES and not (QUICK and row.seed)]
    for name, rows in stored.rows("claim-1").items()
}
numbers = claim_1.gather("cpu", tables)
for name in numbers.names:
    found = numbers.primary[name]
    interval = f"[{found.low:.3f}, {found.high:.3f}]" if found.claimed else "(too few for one)"
    print(f"{name:<13} {found.estimate:.3f} {interval}, search seeds {len(found.seeds)}")

# %% [markdown]
# That is the mean, over horizons of 5, 10, 20, 40 and 80 updates, of the interquartile mean of the
# normalised score (0 random, 1 optimal) on 256 levels; 95 % intervals are bootstrapped over search
# seeds, then levels.

# %%
figure = Figure(figsize=(7, 4.2), layout="constrained")
axes = figure.subplots()
for place, (name, colour, marker) in enumerate(zip(numbers.names, COLOURS, "os^D", strict=False)):
    curve = numbers.curves[name]
    x = np.array(list(curve)) * 1.03 ** (place - 1.5)
    y = np.array([found.estimate for found in curve.values()])
    ends = [(f.low, f.high) if f.claimed else (f.estimate, f.estimate) for f in curve.values()]
    low, high = np.array(ends).T
    axes.errorbar(x, y, (y - low, high - y), label=name, color=colour, marker=marker, linewidth=1.2)
axes.axvspan(5, 80, color="0.93", zorder=0, label="trained horizons")
axes.set_xscale("log")
axes.set_xticks([2, 5, 10, 20, 40, 80, 160, 320], ["2", "5", "10", "20", "40", "80", "160", "320"])
axes.minorticks_off()
axes.set_xlabel("horizon N (agent updates of 160 environment steps)")
axes.set_ylabel("normalised final score, interquartile mean\n(0 random, 1 optimal)")
axes.grid(alpha=0.3)
axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, frameon=False)
figure

# %% [markdown]
# **Found:** at this size it is not. The gap is widest in short lives. What a search of the
# published size would find was not run.
#
# ## What does it do to a policy?
#
# How undecided agents are along their lives under LPG: mean entropy over 32 levels, a line for each
# search seed. LPG sees no horizon, so that a short life is the beginning of a long one; what makes
# entropy fall is learning itself.

# %%
lived = [
    row
    for row in stored.rows("claim-5")["lives"]
    if (row.cell, row.measure) == ("LPG", "entropy") and row.horizon == 160
]
figure = Figure(figsize=(6.4, 3.4), layout="constrained")
axes = figure.subplots()
for row in lived:
    axes.plot(range(len(row.values)), row.values, color=COLOURS[0], alpha=0.6, linewidth=1)
if lived:
    mean = np.mean([row.values for row in lived], axis=0)
    axes.plot(range(len(mean)), mean, color="black", linewidth=2, label="mean")
    axes.axhline(np.log(5), color="0.4", linestyle=":", label="at birth: ln 5")
    axes.legend(loc="upper right")
axes.set_xlabel("updates done, of 160")
axes.set_ylabel("entropy of the policy (nats)")
axes.grid(alpha=0.3)
print("search seeds:", sorted(row.seed for row in lived))
figure

# %% [markdown]
# ## Does it train agents elsewhere?
#
# The paper's main finding is that LPG, found on toy worlds, trains agents in Atari games. Atari is
# not among our environments. The nearest test is claim 2 of the next paper but one, in which LPG
# takes part.


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


told("claim-2")
