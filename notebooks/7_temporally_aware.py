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
# # Temporally-aware objectives
#
# *Discovering Temporally-Aware Reinforcement Learning Algorithms* (Jackson et al., ICLR 2024): an
# objective that sees how much of its agent's life is over, and how long that life is, can learn a
# schedule. TA-LPG and TA-LPO are LPG and LPO with a **clock**. Six claims, each with the figure
# that tests it, drawn from the tables in `discovery/evaluation/tables`.
#
# All is at the size of a CPU, far below the published one: small grid worlds, recurrent networks of
# 16 units, 10 to 40 million environment steps a search. Search seeds are the sample: intervals are
# over them, and with fewer than five none is claimed. Scores are normalised: 0 is a random policy,
# 1 an optimal one.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import os
from textwrap import fill

from discovery.evaluation import stored
from discovery.evaluation.papers import find

QUICK = bool(os.environ.get("KAIROS_QUICK"))  # one search seed, for tests
print("sizes:", "quick" if QUICK else "full")


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


# %% [markdown]
# ## 1. Better over a range of horizons
#
# TA-LPG has to be above LPG, and above two controls that have the same network and the same noise:
# a clock that stands still (*constant*) and one that tells the agent's age but no horizon
# (*elapsed*). Rivals follow schedules of their own.

# %%
told("claim-1")

# %% [markdown]
# ## 2. In environments never trained on

# %%
told("claim-2")

# %% [markdown]
# ## 3. Evolution finds schedules, truncated meta-gradients do not
#
# Each row is a way to search, for TA-LPG and its blind twin. A *false clock* tells the objective a
# wrong time; what is lost under it is what the true one was worth.

# %%
told("claim-3")

# %% [markdown]
# ## 4. TA-LPO against LPO and PPO, in games never trained on

# %%
told("claim-4")

# %% [markdown]
# ## 5. The schedule itself
#
# Agent and experience are frozen; only the share of life that the objective is told is moved. So a
# change is caused by the clock, and not by the agent's having learned.

# %%
told("claim-5")

# %% [markdown]
# ## 6. Which part of the search makes an objective use its horizon
#
# Asked in review of the paper, and never run there.

# %%
told("claim-6")
