"""PPO here beside PPO of rejax, in the same environment at the same sizes.

rejax 0.1 speaks gymnax before 1.0, so it needs an environment of its own:

    uv venv .build/rejax
    uv pip install --python .build/rejax/bin/python rejax==0.1.3 gymnax==0.0.9 six
    python benchmarks/ppo.py --rejax .build/rejax/bin/python

Both train agents of two 64-64 networks, 64 environments x 128 steps an iteration, 4 epochs of 8
minibatches, Adam at one constant rate; seeds are computed together. Not the same, in rejax: value
and policy are clipped apart and element by element, initialisation is LeCun-normal, and a
truncation counts as a termination. Scores are returns of 128 fresh episodes, sampled actions.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

REJAX = """
import json, sys, time
import jax
from rejax import PPO
env, iterations, seeds, rate = sys.argv[1], *map(int, sys.argv[2:4]), float(sys.argv[4])
steps = iterations * 64 * 128
algorithm = PPO.create(
    env=env, total_timesteps=steps, eval_freq=steps, skip_initial_evaluation=True,
    num_envs=64, num_steps=128, num_epochs=4, num_minibatches=8, learning_rate=rate,
    gamma=0.99, gae_lambda=0.95, clip_eps=0.2, vf_coef=0.5, ent_coef=0.01, max_grad_norm=0.5,
    agent_kwargs={"activation": "relu"},
)
train = jax.jit(jax.vmap(lambda key: algorithm.train(key)[1][1]))
keys = jax.random.split(jax.random.PRNGKey(0), seeds)
began = time.perf_counter()
compiled = train.lower(keys).compile()
built = time.perf_counter()
returns = jax.block_until_ready(compiled(keys))
done = time.perf_counter()
print(json.dumps({
    "scores": returns.reshape(seeds, -1).mean(axis=1).tolist(),
    "seconds": done - built, "compile_seconds": built - began,
}))
"""


def ours(env: str, iterations: int, seeds: int, rate: float) -> dict[str, Any]:
    """Lives of PPO in this process."""
    from discovery import devices

    devices.start()
    from discovery.evaluation import horizons
    from discovery.inner.build import make_environment
    from learned_objectives.library import load

    saved = load("ppo")
    how = horizons.setting([saved], make_environment(env))
    agent = replace(how.agent, policy_rate=rate, prediction_rate=rate)
    how = how._replace(agent=agent, life=replace(how.life, evaluation_environments=128))
    who = horizons.enter(saved, env, how, group=seeds, capacity=seeds)
    levels = horizons.held_out(env, "test", seeds).levels
    began = time.perf_counter()
    horizons.score(who, levels, 1, 0, greedy=False)  # the horizon is data: the same program
    built = time.perf_counter()
    outcome = horizons.score(who, levels, iterations, 0, greedy=False)
    done = time.perf_counter()
    return {
        "scores": outcome.final[:, 0].tolist(),
        "seconds": done - built,
        "compile_seconds": built - began,
    }


def theirs(python: str, env: str, iterations: int, seeds: int, rate: float) -> dict[str, Any]:
    """The same in rejax's own environment."""
    arguments = [env, str(iterations), str(seeds), str(rate)]
    done = subprocess.run(
        [python, "-c", REJAX, *arguments], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Read the flags, run both one after the other, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rejax", help="interpreter of rejax's environment; ours alone without")
    parser.add_argument("--envs", nargs="+", default=["CartPole-v1", "Breakout-MinAtar"])
    parser.add_argument("--iterations", type=int, default=61)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    flags = parser.parse_args()
    print("| environment | whose | return, mean and deviation over seeds | steps/s | compile, s |")
    print("|---|---|---|---|---|")
    for env in flags.envs:
        sizes = env, flags.iterations, flags.seeds, flags.rate
        found = {"Kairos": ours(*sizes)}
        if flags.rejax:
            found["rejax"] = theirs(flags.rejax, *sizes)
        for whose, told in found.items():
            scores = told["scores"]
            spread = stdev(scores) if len(scores) > 1 else 0.0
            speed = flags.seeds * flags.iterations * 64 * 128 / told["seconds"]
            print(
                f"| {env} | {whose} | {mean(scores):.2f} ({spread:.2f}) | {speed:,.0f} "
                f"| {told['compile_seconds']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
