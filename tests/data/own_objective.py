"""An objective of one's own: REINFORCE with a baseline, whose learning rate is what is learned."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from learned_objectives.base import Head, Learner, Report


@dataclass(frozen=True)
class Reinforce:
    heads = {"policy": Head("actions")}  # noqa: RUF012

    def unsupported(self, spec):
        return None  # can be used in every environment

    def init(self, key):
        return jnp.zeros(())  # theta: the logarithm of the learning rate

    def hyper(self):
        return ()

    def birth(self, theta, hyper, network, params):
        return Learner(params, optimizer=())

    def signals(self, theta, hyper, network, learner, experience, time):
        def back(later, now):
            reward, ended = now
            later = reward + 0.99 * jnp.where(ended, 0.0, later)
            return later, later

        steps = experience.reward, experience.terminated | experience.truncated
        _, returns = jax.lax.scan(back, jnp.zeros_like(steps[0][0]), steps, reverse=True)
        return {"pi_hat": returns.mean() - returns}

    def update(self, theta, hyper, network, learner, experience, time, key):
        said = self.signals(theta, hyper, network, learner, experience, time)

        def loss(params):
            outputs, _ = network.unroll(params, experience)
            return jnp.mean(said["pi_hat"] * network.log_prob(outputs, experience.action))

        value, slope = jax.value_and_grad(loss)(learner.params)
        params = jax.tree.map(lambda w, g: w - jnp.exp(theta) * g, learner.params, slope)
        return learner._replace(params=params), Report({"loss": value})


def make():
    return Reinforce()
