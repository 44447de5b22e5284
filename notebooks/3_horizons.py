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
# # Horizons
#
# The **horizon** $N$ is how many updates an agent is given. A *temporally-aware* objective sees
# $N$ and how much of the life is over; a *horizon-blind* one does not. Two questions, asked of the
# objectives that come with Kairos:
#
# 1. Who is better at which horizon?
# 2. Does an objective that has a clock use it?

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import os

from discovery import evaluate
from discovery.evaluation import table
from discovery.evaluation.figures import clock_use, horizon_curve
from discovery.requests import EvaluateConfig
from discovery.screen import say

QUICK = bool(os.environ.get("KAIROS_QUICK"))  # tiny sizes, for tests
print("sizes:", "quick" if QUICK else "full")

# %% [markdown]
# ## Score against horizon
#
# `ta-lpg` sees the clock, `lpg` is its blind twin; both were evolved with the same budget, on lives
# of 5 to 100 updates of 320 environment steps, *one search each*. `a2c` is hand-written, its rates
# tuned for agents of this size; `random` never learns. All live on the same held-out levels with
# the same random numbers, so that they can be compared in pairs.

# %%
request = EvaluateConfig(
    objectives=("a2c", "random") if QUICK else ("ta-lpg", "lpg", "a2c", "random"),
    env="chain" if QUICK else "small",
    horizons=(2, 3) if QUICK else (5, 10, 25, 50, 100, 250),
    levels=3 if QUICK else 64,
    out="horizons.csv",
)
rows = evaluate(request, report=lambda line: None)
scores = table.summary(rows)
say(table.render(scores))

# %% [markdown]
# Each number is the interquartile mean of the normalised score (0 random, 1 optimal) over levels,
# with its 95 % interval, bootstrapped over levels. There is one search behind each objective:
# the intervals say nothing about other searches. The shaded horizons are those trained on.

# %%
horizon_curve(scores, trained=(5, 100), title="shipped objectives, one search each")

# %% [markdown]
# ## In pairs
#
# Two agents in one level, under one luck, differ by less than two agents in different levels. So
# differences have narrower intervals than scores. With several horizons looked at together, one of
# them may exclude zero by chance; Holm's correction takes that into account.

# %%
first, *others = request.objectives
compared = [pair for other in others[:2] for pair in table.compare(rows, first, other)]
say(table.render_comparisons(compared))
for pair in compared:
    told = f"N = {pair.horizon:3d}: {pair.first} less {pair.second} {pair.estimate:+.3f}"
    print(f"{told} [{pair.low:+.3f}, {pair.high:+.3f}], p by Holm {pair.holm:.3f}")

# %% [markdown]
# ## False clocks
#
# *Having a clock is not using it.* So the same agents live the same lives while the objective is
# lied to about time: its clock stands still (`frozen-0` at birth, `frozen-0.95` near the end), runs
# backwards, is shuffled, or tells a horizon of a quarter or four times the true one. `half` lives
# half as long, told that it is the first half of a whole life. What is lost
# under a lie is what the true clock was worth.
#
# Beside it stands the same network as it was before the search (*untrained*): what a false clock
# costs *that* is the size of an effect that means nothing.

# %%
asked = EvaluateConfig(
    objectives=("ta-lpg",),
    env="chain" if QUICK else "small",
    horizons=(2,) if QUICK else (10, 50),
    levels=2 if QUICK else 64,
    false_clocks=True,
    out="false-clocks.csv",
)
evaluate(asked, report=lambda line: None)
uses = table.read_clock_uses("false-clocks-clock.csv")  # beside the scores
for use in uses:
    if not use.measure.startswith("S_") and use.horizon == asked.horizons[-1]:
        lost = f"{use.value:+.3f} [{use.low:+.3f}, {use.high:+.3f}]"
        print(f"N = {use.horizon}, {use.objective:<16} {use.measure:<12} loses {lost}")

# %% [markdown]
# To the right, how far the objective's *words* follow what it is told when nothing else changes: 0
# means not at all, 1 as much as they follow what the agent has met. Words may follow the clock and
# change nothing about the score.

# %%
clock_use(uses, title="ta-lpg told a false clock, one search")

# %% [markdown]
# A loss counts if its interval excludes zero *and* it is above what the untrained network loses.
# With one search this is a fact about one objective. What five or more searches say, and in which
# ways of searching, is in the notebook `7_temporally_aware`.
