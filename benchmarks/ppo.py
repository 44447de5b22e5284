"""PPO here beside PPO of rejax, in the same environment at the same sizes.

rejax 0.1 speaks gymnax before 1.0, so it needs an environment of its own:

    uv venv .build/rejax
    uv pip install --python .build/rejax/bin/python rejax==0.1.3 gymnax==0.0.9 six
    python benchmarks/ppo.py --rejax .build/rejax/bin/python

Both train agents of two 64-64 networks, 64 environments x 128 steps an iteration, 4 epochs of 8
minibatches, Adam at one constant rate. rejax computes its seeds together; here they are dealt to
one virtual device a core, or a single seed has a device that uses all cores. Not the same, in
rejax: value and policy are clipped apart and element by element, initialisation is LeCun-normal,
and a truncation counts as a termination. Scores are returns of 128 fresh episodes, sampled
actions, with a 95 % interval of the mean over seeds (t). Compilation is tracing included: of
rejax, what it takes to make the program; here, a first iteration less a second one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from statistics import median
from typing import Any

from discovery.evaluation.statistics import student_interval

ITERATIONS = {"CartPole-v1": 61, "Acrobot-v1": 61, "Breakout-MinAtar": 244}
"""5e5 environment steps, and 2e6."""

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

    devices.start(most=seeds)
    import jax

    from discovery.evaluation import horizons
    from discovery.inner.build import make_environment
    from learned_objectives.library import load

    saved = load("ppo")
    how = horizons.setting([saved], make_environment(env))
    agent = replace(how.agent, policy_rate=rate, prediction_rate=rate)
    how = how._replace(agent=agent, life=replace(how.life, evaluation_environments=128))
    count = jax.device_count()
    who = horizons.enter(saved, env, how, group=1, capacity=-(-seeds // count) * count)
    levels = horizons.held_out(env, "test", seeds).levels
    began = time.perf_counter()
    horizons.score(who, levels, 1, 0, greedy=False)  # the horizon is data: the same program
    built = time.perf_counter()
    horizons.score(who, levels, 1, 0, greedy=False)
    again = time.perf_counter()
    outcome = horizons.score(who, levels, iterations, 0, greedy=False)
    done = time.perf_counter()
    return {
        "scores": outcome.final[:, 0].tolist(),
        "seconds": done - again,
        "compile_seconds": (built - began) - (again - built),
    }


def by_itself(*sizes: Any) -> dict[str, Any]:
    """The same in a new process, which has compiled nothing yet."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(ours, *sizes).result()


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
    parser.add_argument("--envs", nargs="+", default=list(ITERATIONS))
    parser.add_argument("--iterations", type=int, help="by default 61, of Breakout 244")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--repeats", type=int, default=1, help="median times are told")
    flags = parser.parse_args()
    print("| environment | whose | return, mean [95 % interval] | steps/s | compile, s |")
    print("|---|---|---|---|---|")
    for env in flags.envs:
        iterations = flags.iterations or ITERATIONS.get(env, 61)
        sizes = env, iterations, flags.seeds, flags.rate
        found: dict[str, list[dict[str, Any]]] = {"Kairos": [], "rejax": []}
        for _ in range(flags.repeats):  # in turns, so that both meet the same noise
            found["Kairos"].append(ours(*sizes) if flags.repeats == 1 else by_itself(*sizes))
            if flags.rejax:
                found["rejax"].append(theirs(flags.rejax, *sizes))
        for whose, told in found.items():
            if not told:
                continue
            score = student_interval(told[0]["scores"])
            seconds = median(run["seconds"] for run in told)
            speed = flags.seeds * iterations * 64 * 128 / seconds
            compiling = [run["compile_seconds"] for run in told]
            print(
                f"| {env} | {whose} | {score.estimate:.2f} [{score.low:.2f}, {score.high:.2f}] "
                f"| {speed:,.0f} "
                f"| {median(compiling):.1f} ({min(compiling):.1f} - {max(compiling):.1f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
