import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from discovery.config import AgentConfig, ConfigError
from discovery.inner.agent import make_network
from envs.base import EnvSpec
from learned_objectives.base import Experience, Head, Place

CELLS = EnvSpec("cells", (), 6, 4)
VECTOR = EnvSpec("CartPole-v1", (3,), None, 4)
IMAGE = EnvSpec("Breakout-MinAtar", (5, 4, 2), None, 4)
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
    ("kind", "spec", "line"),
    [
        ("table", VECTOR, r"a table needs .* CartPole-v1 .* \(3,\): use --network mlp"),
        ("mlp", CELLS, r"cells shows the index of a state.*: use --network table"),
        ("cnn", CELLS, r"cells shows the index of a state.*: use --network table"),
        ("cnn", VECTOR, r"a CNN needs images, and CartPole-v1 .* \(3,\): use --network mlp"),
        ("mlp", VECTOR._replace(num_actions=None), r"CartPole-v1 has continuous actions"),
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
