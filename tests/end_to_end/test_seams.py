"""Parts from outside of the package: they are used, saved by name, asked for again, and refused in one sentence."""

import functools
import inspect
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entroflow
from entroflow import isfm, optimise
from entroflow.agents.settings import Settings, from_json, to_json
from entroflow.flow import AdaptiveSolver
from entroflow.moments import standard
from entroflow.rl import Actor, ActorDefaults, Config, Critic, DensityPolicy, Flow, Gaussian, MLPCritic, Step

from . import reach  # noqa: F401  registers Reach-v0

SMALL = {"learning_starts": 20, "batch_size": 16, "buffer_size": 200}
traced = set()


def wide(policy, q_function, temperature):
    """A proposal: logistic tails beside the policy."""
    traced.add("proposal")
    return isfm.defensive(policy, isfm.GaussianProposal(np.zeros(policy.action_space.size), 4.0), 0.5)


def halved(log_weights):
    """A normalisation that takes half of the step."""
    traced.add("normalise")
    return jax.nn.softmax(jax.lax.stop_gradient(0.5 * log_weights))


@dataclass(frozen=True)
class Euler:
    """A solver, step by step."""

    steps: int = 2

    def solve(self, velocity, x, *, start=0.0, end=1.0):
        return self.solve_with_integral(
            velocity, lambda x, t: (velocity(x, t), jnp.zeros(())), x, start=start, end=end
        )[0]

    def solve_with_integral(self, velocity, velocity_and_rate, x, *, start=0.0, end=1.0):
        traced.add("solver")
        h, integral = (end - start) / self.steps, jnp.zeros(())
        for i in range(self.steps):
            slope, rate = velocity_and_rate(x, jnp.asarray(start + i * h))
            x, integral = x + h * slope, integral + h * rate
        return x, integral


@dataclass(frozen=True)
class CrossQ:
    """A critic without target networks: (s, a) and (s', a') normalise each other's features (Bhatt et al. 2024)."""

    width: int = 8
    learns_v: bool = False

    def init(self, keys, obs_units, action_size, updates):
        sizes = obs_units.mean.size + action_size, self.width, self.width, 1
        layers = [eqx.nn.Linear(*sizes[i : i + 2], key=key) for i, key in enumerate(jax.random.split(keys[0], 3))]
        return layers, [standard(self.width), standard(self.width)], optax.adam(1e-2).init(layers)

    def q(self, state, obs, action):
        layers, units, _ = state
        x = layers[0](jnp.concatenate([obs, action]))
        for layer, unit in zip(layers[1:], units, strict=True):
            x = layer(jax.nn.relu(unit.normalise(x)))
        return x[0]

    policy_q = q

    def update(self, state, experience):
        traced.add("critic")
        obs, action, next_obs, next_action, target, *_ = experience
        pairs = jnp.concatenate([jnp.hstack([obs, action]), jnp.hstack([next_obs, next_action])])

        def loss(layers):
            hidden = [jax.vmap(layers[0])(pairs)]
            for layer in layers[1:]:
                hidden.append(jax.vmap(layer)(jax.nn.relu(jax.nn.standardize(hidden[-1], axis=0))))
            values, following = jnp.split(hidden[-1][:, 0], 2)
            return jnp.mean((values - target(jax.lax.stop_gradient(following))) ** 2), hidden

        (error, hidden), gradient = jax.value_and_grad(loss, has_aux=True)(state[0])
        layers, adam = optimise.descend(optax.adam(1e-2), gradient, state[0], state[2])
        units = [unit.update(x, jnp.float32(0.1)) for unit, x in zip(state[1], hidden, strict=False)]
        return (layers, units, adam), {"critic_error": jnp.sqrt(error)}


class LogisticPolicy(eqx.Module):
    """A logistic distribution around a linear map, in latents; it does not say what noise it is made of."""

    network: Any
    action_space: Any
    units: Any

    def centre(self, obs):
        return self.network(self.units.normalise(obs))

    def sample(self, key, obs, noise_scale=1.0):
        return self.action_space.to_action(self.centre(obs) + noise_scale * jax.random.logistic(key, (2,)))

    def log_prob(self, obs, action):
        latent = self.action_space.from_action(action)
        density = jnp.sum(jax.scipy.stats.logistic.logpdf(latent, self.centre(obs)))
        return density - self.action_space.log_det(latent)

    def sample_and_log_prob(self, key, obs):
        action = self.sample(key, obs)
        return action, self.log_prob(obs, action)


class ExportedPolicy(LogisticPolicy):
    """The same, which says it."""

    noise_shape = (2,)

    @property
    def obs_units(self):
        return self.units

    def push(self, obs, noise):
        return self.action_space.to_action(self.centre(obs) + jnp.sinh(noise))


@dataclass(frozen=True)
class Logistic:
    """An actor that owes nothing to the package: it climbs Q at its centres."""

    kind: type = LogisticPolicy
    name: str = "logistic"
    has_density: bool = True
    values_are_soft: bool = False
    rate: float = 1e-2
    warmup: float = 0.0
    average: float = 0.0
    states: int = 8

    def network(self, obs_size, action_size, *, key):
        return eqx.nn.Linear(obs_size, action_size, key=key)

    def policy(self, network, action_space, obs_units, temperature):
        return self.kind(network, action_space, obs_units)

    def loss_and_gradient(self, policy, network, key, goal):
        def loss(network):
            latents = jax.vmap(network)(jax.vmap(policy.units.normalise)(goal.obs))
            values = jax.vmap(goal.q_function)(goal.obs, jax.vmap(policy.action_space.to_action)(latents))
            return -jnp.mean(values), values

        (error, values), gradient = jax.value_and_grad(loss, has_aux=True)(network)
        return Step(error, gradient, values, {"climbed": -error})


def moved(before, after):
    """Whether any parameter changed."""
    return any((old != new).any() for old, new in zip(*map(jax.tree.leaves, (before, after)), strict=True))


def test_own_parts_of_improvement_and_an_own_critic(tmp_path):
    """Proposal, normalisation, solver and critic are used together, and asked for by `load`."""
    own = {"proposal": wide, "normalise": halved, "solver": Euler(), "critic": CrossQ()}
    rows = []
    made = entroflow.SACISFM("Reach-v0", pathwise=0, width=8, depth=1, state_width=8, **own, **SMALL)
    before = made.state
    made.learn(26, callback=lambda _, row: rows.append(row))
    assert traced == own.keys() and moved(before.actor, made.state.actor) and moved(before.critic, made.state.critic)
    assert np.isfinite(rows[-1]["critic_error"])
    made.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="got an object of your own, .*, which no file brings back.*; pass .*=…"):
        entroflow.load(tmp_path / "agent", **{name: own[name] for name in ("proposal", "critic")})
    for name in ("actor", "rate", "proposl"):
        with pytest.raises(ValueError, match=f"^{name}: got an object of your own, which is not .*; leave it out.$"):
            entroflow.load(tmp_path / "agent", **own, **{name: wide})
    loaded = entroflow.load(tmp_path / "agent", **own)
    assert loaded.settings == made.settings and not moved(loaded.state, made.state)


def test_an_actor_of_one_s_own(tmp_path):
    """It learns in `SAC`, is loaded when it is passed again, and has the density that it says."""
    rows = []
    made = entroflow.SAC("Reach-v0", actor=Logistic(), critic_width=8, **SMALL)
    before = made.state.actor
    made.learn(26, callback=lambda _, row: rows.append(row))
    assert (
        moved(before, made.state.actor) and np.isfinite(rows[-1]["climbed"]) and made.settings.algorithm == "logistic"
    )
    made.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="actor: got an object of your own, Logistic, .*pass actor=…"):
        entroflow.load(tmp_path / "agent")
    loaded, obs = entroflow.load(tmp_path / "agent", actor=Logistic()), np.ones(2)
    actions, log_probs = loaded.sample_and_log_prob(obs, n=3)
    assert type(loaded) is entroflow.SAC and loaded.settings == made.settings
    np.testing.assert_array_equal(actions, made.sample(obs, n=3))
    np.testing.assert_allclose(log_probs, made.log_prob(obs, actions), rtol=1e-5)
    with pytest.raises(ValueError, match="^settings: got those of logistic, .*; use entroflow.SAC, which takes any.$"):
        entroflow.SACISFM("Reach-v0", actor=Logistic())


def test_a_policy_is_exported_where_it_says_of_what_noise_it_is_made(tmp_path):
    """Other policies are refused in one sentence."""
    with pytest.raises(ValueError, match="^policy: got LogisticPolicy, expected one .*; give it .*\\.$"):
        entroflow.SAC("Reach-v0", actor=Logistic(), critic_width=8).export(tmp_path / "policy.stablehlo")
    made = entroflow.SAC("Reach-v0", actor=Logistic(ExportedPolicy), critic_width=8)
    made.export(tmp_path / "policy.stablehlo")
    obs, noise = jnp.array([[0.5, 1.0]]), jnp.array([[1.0, -0.5]])
    (found,) = jax.export.deserialize((tmp_path / "policy.stablehlo").read_bytes()).call(obs, noise)
    np.testing.assert_allclose(found[0], made.policy.push(obs[0], noise[0]), rtol=1e-5)


def test_protocols_are_what_they_are_documented_to_be():
    """What is written against a protocol is one of it, whether it inherits or not."""
    policy = Logistic().policy(None, None, None, 0.5)
    assert isinstance(Logistic(), Actor) and isinstance(CrossQ(), Critic) and isinstance(policy, DensityPolicy)
    assert isinstance(Flow(), ActorDefaults) and isinstance(Gaussian(), Actor) and isinstance(MLPCritic(), Critic)


def make(kind, **fields):
    """Make settings by their class itself: the type checks of all tests stand before it and know no names."""
    made = object.__new__(kind)
    inspect.unwrap(kind.__init__)(made, **fields)
    return made


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (Config, {"actor": "gaussian_sac"}, Gaussian()),
        (Config, {"actor": Logistic()}, Logistic()),
        (Config, {"critic": "mlp"}, MLPCritic()),
        (Config, {"critic": CrossQ()}, CrossQ()),
        (Flow, {"proposal": "defensive"}, "defensive"),
        (Flow, {"proposal": wide}, wide),
        (Flow, {"normalise": "state"}, "state"),
        (Flow, {"normalise": halved}, halved),
        (Flow, {"solver": AdaptiveSolver(), "pathwise": 0}, AdaptiveSolver()),
        (Flow, {"solver": Euler(), "pathwise": 0}, Euler()),
    ],
)
def test_a_name_or_an_object(kind, given, expected):
    """Every seam takes either, and settings made alike compare equal, so that programs are shared."""
    made = make(kind, **given)
    assert getattr(made, next(iter(given))) == expected
    assert made == make(kind, **given) and hash(made) == hash(make(kind, **given))
    assert (made != make(kind)) == (getattr(make(kind), next(iter(given))) != expected)


@dataclass(frozen=True)
class Half:
    """Half of a critic."""

    learns_v: bool = False

    def q(self, state, obs, action): ...


@dataclass(frozen=True)
class ListedCritic(CrossQ):
    """A critic whose settings have no hash."""

    sizes: Any = ()


@dataclass(frozen=True)
class Listed(Euler):
    """A solver whose steps have no hash."""

    steps: Any = field(default_factory=lambda: [2, 4])


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Config, {"actor": Logistic}, "actor: got the class Logistic, expected .*; pass an object made of it."),
        (Config, {"actor": CrossQ()}, "actor: got CrossQ.*, or an object with the methods of Actor; it has no .*."),
        (Config, {"critic": Half()}, "critic: got Half.*; it has no init and no policy_q and no update."),
        (Flow, {"normalise": None}, "normalise: got None, .* methods of Normalisation; it has no __call__."),
        (
            Config,
            {"critic": ListedCritic(sizes=[8, 8])},
            "critic: got ListedCritic, which has no hash .*; make it a frozen dataclass.",
        ),
        (
            Flow,
            {"solver": Listed(), "pathwise": 0},
            "solver: got Listed, which has no hash .*; make it a .*.",
        ),
        (
            Flow,
            {"proposal": lambda policy: policy},
            r"proposal: got a function with too many .*\(policy, q_function, .*.",
        ),
        (Flow, {"proposal": lambda p, q, t, more: p}, "proposal: got a function with missing .*'more'.*these."),
        (Flow, {"proposal": functools.partial(wide, None)}, "proposal: got a function with .*; let it take these."),
        (Flow, {"normalise": lambda: 1.0}, r"normalise: got a function with too many .*arguments \(log_weights\); .*."),
        (Flow, {"normalise": lambda log_weights, rate: 1.0}, "normalise: got a function with missing .*'rate'.*."),
        (Flow, {"solver": Euler, "pathwise": 0}, "solver: got the class Euler, expected .*."),
        (Flow, {"solver": Euler()}, "pathwise: got 0.3 with Euler, .*; use RungeKutta, or pathwise=0."),
    ],
)
def test_what_is_no_such_part_is_refused(kind, given, message):
    """One sentence, when the settings are made."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(kind, **given)


@dataclass(frozen=True)
class Leafy(ActorDefaults):
    """An actor whose network holds a function where arrays should be."""

    def network(self, obs_size, action_size, *, key):
        return eqx.nn.MLP(obs_size, action_size, 4, 1, key=key)

    def policy(self, network, action_space, obs_units, temperature): ...


def test_networks_are_trees_of_arrays():
    """A function among the leaves is named with its place."""
    with pytest.raises(
        ValueError, match=r"^network of Leafy: got .* at \.activation, expected arrays alone; "
    ) as refusal:
        entroflow.SAC("Reach-v0", actor=Leafy())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("schedule", [{"kind": "AdaptiveCandidates", "budget": 4.0}, {"sizes": [4]}, {"own": "Mine"}])
def test_settings_with_a_schedule_of_candidates_are_refused(schedule):
    """Which earlier versions had, one of their own with its name and without, or the user's."""
    document = to_json(Settings())
    document["config"]["actor"]["candidates"] = schedule
    with pytest.raises(ValueError, match="^candidates: got a schedule of candidates, expected a whole number; read"):
        from_json(document, {"candidates": 3})
