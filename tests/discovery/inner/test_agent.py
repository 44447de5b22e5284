import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from discovery.config import AgentConfig, ConfigError
from discovery.inner.agent import acting, log_slope, make_network
from envs.base import Environment, EnvSpec, Transition
from learned_objectives.base import Experience, Head, Place

CELLS = EnvSpec("cells", (), 6, 4)
VECTOR = EnvSpec("CartPole-v1", (3,), None, 4)
IMAGE = EnvSpec("Breakout-MinAtar", (5, 4, 2), None, 4)
PENDULUM = EnvSpec("Pendulum-v1", (3,), None, None, (2,))
HEADS = {"policy": Head("actions"), "prediction": Head(3), "q": Head(2, per_action=True)}

AGENTS = {
    "table": (AgentConfig(), CELLS),
    "mlp": (AgentConfig(network="mlp", hidden=(8, 5)), VECTOR),
    "mlp on an image": (AgentConfig(network="mlp", hidden=(5,)), IMAGE),
    "cnn": (AgentConfig(network="cnn", hidden=(5,)), IMAGE),
}


def observations(spec, *batch):
    random = np.random.default_rng(0)
    if spec.num_states is not None:
        return jnp.asarray(random.integers(0, spec.num_states, batch), jnp.int32)
    return jnp.asarray(random.normal(size=(*batch, *spec.observation_shape)), jnp.float32)


def table(**rows):
    """A table for CELLS with these rows a head, and its parameters."""
    network = make_network(AgentConfig(), HEADS, CELLS)
    return network, {head: {"table": jnp.asarray(value)} for head, value in rows.items()}


# --- networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", AGENTS)
def test_every_head_has_its_shape(kind):
    agent, spec = AGENTS[kind]
    network = make_network(agent, HEADS, spec)
    params = jax.eval_shape(network.init, jax.random.key(0))
    for batch in [(), (7,), (5, 2)]:
        outputs = jax.eval_shape(network.act, params, observations(spec, *batch))
        assert {head: out.shape for head, out in outputs.items()} == {
            "policy": (*batch, 4),
            "prediction": (*batch, 3),
            "q": (*batch, 4, 2),
        }


@pytest.mark.parametrize("kind", ["table", "mlp", "cnn"])
def test_outputs_have_the_dtype_of_the_parameters(kind):
    agent, spec = AGENTS[kind]
    with jax.enable_x64(True):
        network = make_network(agent, HEADS, spec)
        params = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, jnp.float64),
            jax.eval_shape(network.init, jax.random.key(0)),
        )
        outputs = jax.eval_shape(network.act, params, observations(spec, 2))
    assert {out.dtype for out in outputs.values()} == {np.dtype(np.float64)}


def test_a_table_starts_at_zero():
    network = make_network(AgentConfig(), HEADS, CELLS)
    params = network.init(jax.random.key(0))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(params))


def test_heads_of_an_mlp_share_no_weights():
    heads = {"policy": Head(3), "prediction": Head(3)}
    network = make_network(AgentConfig(network="mlp", hidden=(8,)), heads, VECTOR)
    params = jax.jit(network.init)(jax.random.key(0))
    first, second = (params[head]["Dense_0"] for head in heads)
    assert not np.allclose(first["kernel"], second["kernel"])
    assert not np.any(first["bias"])


def test_a_lookup_is_a_one_hot_product():
    random = np.random.default_rng(1)
    rows = {"policy": random.normal(size=(6, 4)), "prediction": random.normal(size=(6, 3))}
    rows["q"] = random.normal(size=(6, 8))
    network, params = table(**rows)
    seen = observations(CELLS, 3, 5)
    outputs = network.act(params, seen)
    product = jax.nn.one_hot(seen, 6) @ params["policy"]["table"]
    np.testing.assert_allclose(outputs["policy"], product, rtol=1e-6)
    per_action = (jax.nn.one_hot(seen, 6) @ params["q"]["table"]).reshape(3, 5, 4, 2)
    np.testing.assert_allclose(outputs["q"], per_action, rtol=1e-6)


def test_an_mlp_worked_by_hand():
    agent = AgentConfig(network="mlp", hidden=(2,))
    network = make_network(agent, {"policy": Head(1)}, VECTOR)
    layers = {
        "Dense_0": {
            "kernel": jnp.asarray([[1.0, 0], [2, 0], [0, 1]]),
            "bias": jnp.asarray([1, -1]),
        },
        "Dense_1": {"kernel": jnp.asarray([[2.0], [5.0]]), "bias": jnp.asarray([0.5])},
    }
    # hidden: relu(1 + 2 + 1), relu(-3 - 1)
    outputs = network.act({"policy": layers}, jnp.asarray([1.0, 1.0, -3.0]))
    assert outputs["policy"].tolist() == [8.5]


def test_unroll_reads_both_observations():
    network, params = table(policy=np.eye(6, 4), prediction=np.eye(6, 3), q=np.eye(6, 8))
    now, after = observations(CELLS, 5, 2), observations(CELLS, 5, 2)[::-1]
    blank = jnp.zeros((5, 2))
    experience = Experience(now, blank.astype(int), blank, blank > 0, blank > 0, after, {})
    for seen, outputs in zip((now, after), network.unroll(params, experience), strict=True):
        np.testing.assert_array_equal(outputs["policy"], np.eye(6, 4)[seen])


def test_layout_counts_layers_from_the_input():
    network = make_network(AgentConfig(network="mlp", hidden=(2,) * 11), HEADS, VECTOR)
    params = jax.eval_shape(network.init, jax.random.key(0))
    layout = network.layout(params)
    for head in HEADS:
        for depth in range(12):
            places = layout[head][f"Dense_{depth}"]
            assert places == {"kernel": Place(head, depth), "bias": Place(head, depth)}
    network = make_network(AgentConfig(network="cnn", hidden=(5,)), HEADS, IMAGE)
    layout = network.layout(jax.eval_shape(network.init, jax.random.key(0)))["policy"]
    assert [layout[name]["bias"].depth for name in ("Conv_0", "Dense_0", "Dense_1")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("activation", "bent"),
    [("relu", [2, 0]), ("tanh", np.tanh([2, -1])), ("swish", [2 / (1 + np.exp(-2)), -0.26894142])],
)
def test_activations(activation, bent):
    agent = AgentConfig(network="mlp", hidden=(2,), activation=activation)
    network = make_network(agent, {"policy": Head(2)}, VECTOR)
    first = {"kernel": jnp.asarray([[2.0, 0], [0, 1], [0, 0]]), "bias": jnp.zeros(2)}
    second = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
    params = {"policy": {"Dense_0": first, "Dense_1": second}}
    seen = network.act(params, jnp.asarray([1.0, -1.0, 0.0]))["policy"]
    np.testing.assert_allclose(seen, bent, rtol=1e-5)


@pytest.mark.parametrize(("network", "spec"), [("mlp", VECTOR), ("cnn", IMAGE)])
def test_orthogonal_kernels_have_their_gains(network, spec):
    agent = AgentConfig(network=network, hidden=(16,), initialisation="orthogonal")
    heads = {"policy": Head("actions"), "value": Head(1), "prediction": Head(3)}
    params = jax.jit(make_network(agent, heads, spec).init)(jax.random.key(0))
    for head, gain in {"policy": 0.01, "value": 1, "prediction": 1}.items():
        layers = [params[head][name] for name in sorted(params[head])]
        for layer, wanted in zip(layers, [math.sqrt(2)] * (len(layers) - 1) + [gain], strict=True):
            kernel = np.asarray(layer["kernel"]).reshape(-1, layer["bias"].size)
            sizes = np.linalg.svd(kernel, compute_uv=False)
            np.testing.assert_allclose(sizes, wanted, rtol=1e-4)
            assert not np.any(layer["bias"])


def test_lecun_uniform_kernels_fill_their_interval():
    agent = AgentConfig(network="mlp", hidden=(300,), initialisation="lecun_uniform")
    network = make_network(agent, {"policy": Head("actions")}, VECTOR)
    kernel = jax.jit(network.init)(jax.random.key(0))["policy"]["Dense_0"]["kernel"]
    # Variance 1/3, for three inputs.
    assert scipy.stats.kstest(np.ravel(kernel), scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_a_value_head_can_have_widths_of_its_own():
    heads = {"policy": Head("actions"), "value": Head(1)}
    for own, expected in ((None, [8, 5]), ((7,), [7]), ((), [])):
        agent = AgentConfig(network="mlp", hidden=(8, 5), value_hidden=own)
        network = make_network(agent, heads, VECTOR)
        params = jax.eval_shape(network.init, jax.random.key(0))
        widths = {
            head: [params[head][name]["bias"].size for name in sorted(params[head])]
            for head in heads
        }
        assert widths == {"policy": [8, 5, 4], "value": [*expected, 1]}


def test_a_table_refuses_to_normalise_observations():
    with pytest.raises(ConfigError, match=r"a table .* cannot be normalised: leave --norm"):
        make_network(AgentConfig(normalise_observations=True), HEADS, CELLS)


@pytest.mark.parametrize(
    ("kind", "spec", "line"),
    [
        ("table", VECTOR, r"a table needs .* CartPole-v1 .* \(3,\): use --network mlp"),
        ("mlp", CELLS, r"cells shows the index of a state.*: use --network table"),
        ("cnn", CELLS, r"cells shows the index of a state.*: use --network table"),
        ("cnn", VECTOR, r"a CNN needs images, and CartPole-v1 .* \(3,\): use --network mlp"),
        ("mlp", PENDULUM, r"a row for each action, and Pendulum-v1 has continuous actions"),
    ],
)
def test_wrong_pairings_say_what_would_go(kind, spec, line):
    with pytest.raises(ConfigError, match=line):
        make_network(AgentConfig(network=kind), HEADS, spec)


# --- the policy -------------------------------------------------------------------------------

LOGITS = np.array([0.3, -1.0, 2.0, 0.5], np.float32)


@pytest.fixture(scope="module")
def network():
    return make_network(AgentConfig(), HEADS, CELLS)


def test_samples_follow_the_policy(network):
    uniform = jax.random.uniform(jax.random.key(0), (20_000, network.noise_size))
    actions = network.sample({"policy": jnp.broadcast_to(LOGITS, (20_000, 4))}, uniform)
    pi = scipy.special.softmax(LOGITS.astype(np.float64))
    counts = np.bincount(actions, minlength=4)
    assert scipy.stats.chisquare(counts, 20_000 * pi).pvalue > 0.01
    # The test would notice a policy that is a little off.
    assert scipy.stats.chisquare(counts, 20_000 * (0.95 * pi + 0.05 / 4)).pvalue < 1e-3


def test_inverse_transform_worked_by_hand(network):
    logits = jnp.log(jnp.asarray([0.25, 0.5, 0.125, 0.125]))
    noise = jnp.asarray([0.0, 0.2, 0.3, 0.7, 0.76, 0.9])[:, None]
    actions = network.sample({"policy": jnp.broadcast_to(logits, (6, 4))}, noise)
    assert actions.tolist() == [0, 0, 1, 1, 2, 3]


def test_no_noise_and_no_rounding_gives_an_action_of_probability_zero(network):
    """Noise at its extremes; policies whose rounded probabilities do not add up to one."""
    largest = np.float32(1 - 2**-24)
    logits = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    sums = jnp.cumsum(jax.nn.softmax(jnp.asarray(logits)), -1)[:, -1]
    assert (sums < 1).any()
    impossible = {"first": [0], "last": [3], "both": [0, 3], "all but one": [0, 1, 3]}
    for without in ([], *impossible.values()):
        policy = logits.copy()
        policy[:, without] = -1e4
        for extreme in (0.0, largest):
            noise = jnp.full((5000, 1), extreme, jnp.float32)
            actions = np.asarray(network.sample({"policy": jnp.asarray(policy)}, noise))
            assert actions.min() >= 0
            assert actions.max() <= 3
            assert not np.isin(actions, without).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_policy_still_acts(bad, network):
    outputs = {"policy": jnp.full((3, 4), bad)}
    for action in (network.sample(outputs, jnp.full((3, 1), 0.9)), network.mode(outputs)):
        assert action.dtype == jnp.int32
        assert ((action >= 0) & (action < 4)).all()


def test_mode_log_probability_entropy_and_divergence(network):
    first, second = ({"policy": jnp.asarray(x)} for x in (LOGITS, LOGITS[::-1].copy()))
    p = np.exp(LOGITS) / np.exp(LOGITS).sum()
    assert int(network.mode(first)) == 2
    for action in range(4):
        log_prob = network.log_prob(first, jnp.asarray(action))
        np.testing.assert_allclose(log_prob, np.log(p[action]), rtol=1e-5)
    np.testing.assert_allclose(network.entropy(first), scipy.stats.entropy(p), rtol=1e-5)
    divergence = scipy.stats.entropy(p, p[::-1])
    np.testing.assert_allclose(network.kl(first, second), divergence, rtol=1e-5)


# --- continuous actions -----------------------------------------------------------------------

MEAN = np.array([0.3, -1.2, 2.0])
DEVIATION = np.array([0.2, 0.9, 1.6])


def continuous(distribution, shape=(3,)):
    agent = AgentConfig(network="mlp", distribution=distribution)
    heads = {"policy": Head("actions"), "value": Head(1)}
    return make_network(agent, heads, PENDULUM._replace(action_shape=shape))


def outputs_of(mean, deviation):
    """What the head puts out for these: softplus(raw) + .001 is the deviation."""
    mean, deviation = np.broadcast_arrays(np.float32(mean), np.float32(deviation))
    raw = np.log(np.expm1(deviation - 0.001))
    return {"policy": jnp.asarray(np.concatenate([mean, raw], axis=-1))}


@pytest.fixture(scope="module")
def tanh():
    return continuous("tanh")


@pytest.fixture(scope="module")
def clipped():
    return continuous("clipped")


def test_a_gaussian_has_two_numbers_for_each_of_an_action():
    for shape, size in (((), 1), ((3,), 3), ((2, 3), 6)):
        network = continuous("tanh", shape)
        params = jax.eval_shape(network.init, jax.random.key(0))
        outputs = jax.eval_shape(network.act, params, jnp.zeros((5, 2, 3)))
        assert outputs["policy"].shape == (5, 2, 2 * size)
        assert network.noise_size == size
        action = jax.eval_shape(network.sample, outputs, jnp.zeros((5, 2, size)))
        assert action.shape == jax.eval_shape(network.mode, outputs).shape == (5, 2, *shape)
        assert jax.eval_shape(network.log_prob, outputs, action).shape == (5, 2)
        assert jax.eval_shape(network.entropy, outputs).shape == (5, 2)
        assert jax.eval_shape(network.kl, outputs, outputs).shape == (5, 2)


@pytest.mark.parametrize("kind", ["tanh", "clipped"])
def test_samples_are_gaussian(kind, request):
    network = request.getfixturevalue(kind)
    noise = jax.random.uniform(jax.random.key(0), (4000, 3))
    outputs = {"policy": jnp.tile(outputs_of(MEAN, DEVIATION)["policy"], (4000, 1))}
    actions = np.asarray(network.sample(outputs, noise))
    for d in range(3):
        found = scipy.stats.kstest(actions[:, d], scipy.stats.norm(MEAN[d], DEVIATION[d]).cdf)
        assert found.pvalue > 0.01
    assert abs(np.corrcoef(actions.T) - np.eye(3)).max() < 0.05
    np.testing.assert_allclose(network.mode(outputs)[0], MEAN, rtol=1e-5)


def test_no_noise_gives_an_infinite_action(tanh):
    """Of all that a uniform number can be, the ends lie as far from the middle."""
    outputs = outputs_of(np.zeros(3), np.ones(3))
    ends = [tanh.sample(outputs, jnp.full(3, u, jnp.float32)) for u in (0, 1 - 2**-23, 1 - 2**-24)]
    assert np.isfinite(ends).all()
    np.testing.assert_allclose(ends[0], -5.3, atol=0.1)
    np.testing.assert_allclose(ends[1], -ends[0], rtol=1e-4)
    middle = tanh.sample(outputs, jnp.full(3, 0.5, jnp.float32))
    np.testing.assert_allclose(middle, 0, atol=1e-6)


def test_the_slope_of_tanh():
    x = np.array([-3, -0.5, 0, 0.1, 4.0])
    np.testing.assert_allclose(log_slope(jnp.asarray(x)), np.log1p(-(np.tanh(x) ** 2)), rtol=2e-5)
    # Far out, where tanh is 1 and the slope underflows: 4 exp(-2 |x|).
    far = jnp.asarray([-80.0, 80.0])
    np.testing.assert_allclose(log_slope(far), math.log(4) - 160, rtol=1e-6)
    assert np.isfinite(jax.vmap(jax.grad(log_slope))(far)).all()


def test_densities(tanh, clipped):
    outputs = outputs_of(MEAN, DEVIATION)
    x = jnp.asarray([0.1, -2.0, 3.0])
    gauss = scipy.stats.norm.logpdf(np.asarray(x), MEAN, DEVIATION)
    np.testing.assert_allclose(clipped.log_prob(outputs, x), gauss.sum(), rtol=1e-5)
    slope = np.log1p(-(np.tanh(np.float64(x)) ** 2))
    np.testing.assert_allclose(tanh.log_prob(outputs, x), (gauss - slope).sum(), rtol=1e-5)


def test_a_squashed_density_integrates_to_one():
    network = continuous("tanh", (1,))
    outputs = outputs_of(np.array([0.4]), np.array([0.7]))
    # Over the action a in (-1, 1) that the environment gets.
    a = np.linspace(-1, 1, 20_001)[1:-1]
    x = jnp.asarray(np.arctanh(a), jnp.float32)[:, None]
    tiled = {"policy": jnp.tile(outputs["policy"], (x.shape[0], 1))}
    density = np.exp(np.asarray(network.log_prob(tiled, x)))
    assert scipy.integrate.trapezoid(density, a) == pytest.approx(1, abs=1e-3)


def test_ratios_do_not_see_the_squashing(tanh, clipped):
    first, second = outputs_of(MEAN, DEVIATION), outputs_of(MEAN + 0.1, DEVIATION * 1.1)
    x = jnp.asarray([9.0, -8.0, 7.0])
    ratios = [n.log_prob(first, x) - n.log_prob(second, x) for n in (tanh, clipped)]
    np.testing.assert_allclose(*ratios, rtol=1e-4)


@pytest.mark.parametrize(
    ("deviation", "error"), [(0.05, 1e-5), (0.6, 1e-5), (1, 1e-4), (2, 4e-3), (3, 0.03)]
)
def test_entropies(deviation, error):
    squashed, clipped = continuous("tanh", (1,)), continuous("clipped", (1,))
    for mean in (0.0, 0.3, -1.0, 2.0, 4.0):
        outputs = outputs_of(np.array([mean]), np.array([deviation]))
        gauss = scipy.stats.norm.entropy(mean, deviation)
        np.testing.assert_allclose(clipped.entropy(outputs), gauss, rtol=1e-4, atol=1e-5)

        def weighed(z, mean=mean):
            x = mean + deviation * z
            slope = 2 * (np.log(2) - x - np.logaddexp(0, -2 * x))
            return slope * scipy.stats.norm.pdf(z)

        kink = -mean / deviation
        points = [kink] if abs(kink) < 10 else None
        slope = scipy.integrate.quad(weighed, -10, 10, points=points, limit=200)[0]
        assert float(squashed.entropy(outputs)) == pytest.approx(gauss + slope, abs=error + 1e-5)


def test_divergences(tanh, clipped):
    first, second = outputs_of(MEAN, DEVIATION), outputs_of(MEAN[::-1], DEVIATION[::-1] * 1.5)
    random = np.random.default_rng(0).normal(size=(200_000, 3))
    x = MEAN + DEVIATION * random
    p = scipy.stats.norm.logpdf(x, MEAN, DEVIATION).sum(1)
    q = scipy.stats.norm.logpdf(x, MEAN[::-1], DEVIATION[::-1] * 1.5).sum(1)
    for network in (tanh, clipped):
        np.testing.assert_allclose(network.kl(first, second), np.mean(p - q), rtol=0.02)
        np.testing.assert_allclose(network.kl(first, first), 0, atol=1e-6)


@pytest.mark.parametrize("kind", ["tanh", "clipped"])
def test_extreme_heads_have_finite_slopes(kind, request):
    """Deviations from .001 to 80, means and actions where tanh is flat."""
    network = request.getfixturevalue(kind)
    policy = jnp.asarray([40.0, -40.0, 0.0, -80.0, 80.0, -20.0])

    def of(policy):
        outputs = {"policy": policy}
        action = jnp.asarray([41.0, -39.0, 0.002])
        return network.log_prob(outputs, action) + network.entropy(outputs)

    value, slope = jax.value_and_grad(of)(policy)
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_agents_act_within_bounds():
    def step(noise, state, action, level):
        no = jnp.zeros((), bool)
        return Transition(action, state, jnp.zeros(()), no, no, action)

    spec = PENDULUM._replace(observation_shape=(2,))
    env = Environment(spec, None, None, None, step, None, None, None)
    action = jnp.asarray([0.5, -3.0])
    for distribution, seen in (("tanh", np.tanh(action)), ("clipped", [0.5, -1])):
        after = acting(env, distribution).step(None, None, action, None)
        np.testing.assert_allclose(after.observation, seen, rtol=1e-6)
    discrete = env._replace(spec=VECTOR)
    assert acting(discrete, "tanh") is discrete
