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
# # Searching
#
# A search begins with an objective that does nothing and ends with one that trains agents. Here it
# is an *evolution strategy*: in each **generation**, pairs of candidates (the mean plus and minus
# the same random change) are given the same tasks and the same luck, their agents live whole lives,
# and the mean of the search moves towards the better one of each pair. A **task** is a level with a
# horizon $N$, the number of updates of the life.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import os
from dataclasses import replace

from discovery import evaluate, evolve, load
from discovery.config import HorizonConfig, population, preset
from discovery.evaluation import table
from discovery.evaluation.figures import horizon_curve, learning_curve
from discovery.requests import EvaluateConfig
from discovery.screen import say

QUICK = bool(os.environ.get("KAIROS_QUICK"))  # tiny sizes, for tests
print("sizes:", "quick" if QUICK else "full")

# %% [markdown]
# ## What is searched for
#
# A configuration is a frozen dataclass; a preset is one with a name. Every field is also a flag of
# `kairos evolve`. This one is the quickstart's: TA-LPG with a recurrent network of 16 units, agents
# that are tables, 8 environments of 20 steps an update; the search is an eighth as long.

# %%
config = replace(preset("quickstart"), generations=50, seed=3)
if QUICK:
    config = replace(preset("smoke"), env="chain", horizon=HorizonConfig(2, 3), generations=3)
    config = replace(config, objective=replace(config.objective, rule="a2c-constant"))
lives, _ = population(config)
print(f"{config.generations} generations of {lives} lives in {config.env!r},")
print(f"each of {config.horizon.shortest} to {config.horizon.longest} updates")

# %% [markdown]
# ## Stop, and go on
#
# A search may be stopped at any moment: by a time limit as here, by Ctrl-C, or by a kill. It goes
# on from the newest checkpoint, and on a CPU it ends with the same bytes as one that was never
# stopped. With `cache=True` compiled programs are kept, so that going on compiles nothing.

# %%
begun = evolve(config, "runs/search", max_minutes=0.05, quiet=True, overwrite=True, cache=not QUICK)
print("stopped by:", begun.stopped)

run = evolve(resume="runs/search", quiet=True, cache=not QUICK)
print(f"{run.generation} of {run.config.generations} generations are done")

# %% [markdown]
# The same from a shell, where `--max-minutes` stops it:
#
# ```bash
# kairos evolve --preset quickstart --generations 50 --seed 3 --max-minutes 1 --out runs/mine
# kairos evolve --resume runs/mine
# ```
#
# ## Is it learning?
#
# A line of metrics for every few generations is in `metrics.jsonl`. The score to look at is
# `validation`: the return of agents that live under the *mean* of the search, on fixed levels that
# it never trains on. The population's own mean score is on tasks that change all the time, and
# shows little.

# %%
last = run.metrics[-1]
for name in ("generation", "validation", "fitness", "tied", "nonfinite"):
    print(f"{name:<10} {last.get(name)}")
learning_curve(run.metrics, population=lives, title="one search, seed 3")

# %% [markdown]
# `fitness` is the population's own mean score; `tied` is the share of pairs in which neither was
# better; `nonfinite` counts lives whose numbers overflowed.
#
# ## What was found
#
# A run folder holds the objective as plain arrays, and a card that says what they are and how they
# were made.

# %%
found = load("runs/search")
print("rule:", found.card["rule"], "with", found.card["parameters"], "numbers")
print("trained on:", found.card["config"]["env"], "for", found.card["config"]["horizon"])
for name, array in list(found.card["arrays"].items())[:4]:
    print(f"  {name}: {array['shape']}")

# %% [markdown]
# ## What it is worth
#
# On levels that were used for nothing before, beside hand-written A2C (at rates tuned for lives of
# this size) and agents that never learn. The interquartile mean leaves out the best and the worst
# quarter of the levels; intervals are bootstrapped over levels, so they say how sure the score of
# *this* objective is, and nothing about what another search would have found.

# %%
request = EvaluateConfig(
    objectives=("runs/search", "random") if QUICK else ("runs/search", "a2c", "random"),
    env=config.env,
    horizons=(2, 3) if QUICK else (5, 10, 20, 40, 80),
    levels=4 if QUICK else 128,
    out="scores.csv",
)
scores = table.summary(evaluate(request, report=lambda line: None))
say(table.render(scores))

# %% [markdown]
# So short a search begins to find something, first where lives are long; hand-written A2C is far
# ahead of it. The quickstart goes on for 400 generations.

# %%
trained = (config.horizon.shortest, config.horizon.longest)
horizon_curve(scores, trained=trained, title="one search of 50 generations, seed 3")
