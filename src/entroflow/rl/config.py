"""Settings of soft actor-critic."""

from dataclasses import dataclass

from ..checks import error
from ..fields import Count, Number, Positive, PositiveShare, check_fields, named
from .actors import ACTORS, Actor, Flow
from .critics import CRITICS, Critic, MLPCritic

FLOW, MLP_CRITIC = Flow(), MLPCritic()


@dataclass(frozen=True)
class Config:
    """Settings of soft actor-critic; shapes and schedules, the same for all runs of a program.

    Attributes:
        actor: class of the policy, with the settings of its improvement: an `Actor`, or a name of `ACTORS`.
        critic: class of Q, with the settings of its learning: a `Critic`, or a name of `CRITICS`.
        updates: number of updates that a planned training will make: Muon, with warm-up and cosine decay to zero, and
            units that settle at half time. None if training has no planned end: Adam at constant rates.
        entropy_in_target: whether V(s') counts the entropy, where the actor knows it.
        batch_size: transitions per critic update.
        target_entropy: entropy in nats that the temperature is steered to; None leaves the temperature as it is.
        temperature_rate: learning rate of log α.
        reward_scale: what rewards are multiplied with.
        normalise_obs: whether networks see observations less their running mean over their running deviation.
        obs_limit: bound on the absolute value of normalised observations, against rare and far ones; None: none.
        recent: fraction of the transitions so far, counted from the newest, that batches are drawn from.

    Raises:
        ValueError: in one sentence, for a value that is not possible, or two that do not go together.
    """

    actor: Actor = FLOW
    critic: Critic = MLP_CRITIC
    updates: Count | None = None
    entropy_in_target: bool = True
    batch_size: Count = 256
    target_entropy: Number | None = None
    temperature_rate: Positive = 3e-4
    reward_scale: Positive = 1.0
    normalise_obs: bool = True
    obs_limit: Positive | None = 10.0
    recent: PositiveShare = 1.0

    def __post_init__(self):
        object.__setattr__(self, "actor", named("actor", self.actor, ACTORS, Actor))
        object.__setattr__(self, "critic", named("critic", self.critic, CRITICS, Critic))
        check_fields(self)
        if self.critic.learns_v and self.target_entropy is not None:
            remedy = "choose soft_value='action', whose actions tell the entropy, or a fixed temperature"
            raise error("soft_value", "a network V with a target entropy", "one or the other", remedy)
        if self.critic.learns_v and not self.actor.values_are_soft:
            given = f"a network V with values of {self.actor.name} that are not those of its policy"
            remedy = "choose soft_value='action', or the policy as proposal: V learns from candidates of the policy"
            raise error("soft_value", given, "one or the other", remedy)
