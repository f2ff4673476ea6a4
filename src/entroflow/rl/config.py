"""Settings of soft actor-critic."""

from dataclasses import dataclass
from typing import Literal

from ..checks import error
from .actors import Actor, Flow

FLOW = Flow()


@dataclass(frozen=True)
class Config:
    """Settings of soft actor-critic; shapes and schedules, the same for all runs of a program.

    Attributes:
        actor: class of the policy, with the settings of its improvement.
        updates: number of updates that a planned training will make: Muon, with warm-up and cosine decay to zero, and
            units that settle at half time. None if training has no planned end: Adam at constant rates.
        critic_width: width of the critics.
        critic_depth: hidden layers of the critics.
        layer_norm: whether to normalise the critics' hidden layers.
        critics: number of critics.
        critic_value: value of the ensemble: "mean", or "min" against overestimation (which biases Q).
        soft_value: V(s') from an "action" drawn at s', or from a "network".
        entropy_in_target: whether V(s') counts the entropy; False gives what algorithms without a density do.
        batch_size: transitions per critic update.
        critic_rate: learning rate of the critics; its peak in a planned training.
        critic_warmup: fraction of a planned training over which it rises.
        target_rate: rate at which the target critics follow the critics, at first.
        final_target_rate: the same at the end of a planned training, small to average the critics over many batches.
        policy_critic: which critics the policy is improved on, the slow "target" or the "online" ones.
        target_entropy: entropy in nats that the temperature is steered to; None leaves the temperature as it is.
        temperature_rate: learning rate of log α.
        reward_scale: what rewards are multiplied with.
        normalise_obs: whether networks see observations less their running mean over their running deviation.
        obs_limit: bound on the absolute value of normalised observations, against rare and far ones; None: none.
        recent: fraction of the transitions so far, counted from the newest, that batches are drawn from.
    """

    actor: Actor = FLOW
    updates: int | None = None
    critic_width: int = 256
    critic_depth: int = 2
    layer_norm: bool = True
    critics: int = 2
    critic_value: Literal["mean", "min"] = "min"
    soft_value: Literal["action", "network"] = "action"
    entropy_in_target: bool = True
    batch_size: int = 256
    critic_rate: float = 3e-4
    critic_warmup: float = 0.02
    target_rate: float = 0.005
    final_target_rate: float = 0.005
    policy_critic: Literal["target", "online"] = "online"
    target_entropy: float | None = None
    temperature_rate: float = 3e-4
    reward_scale: float = 1.0
    normalise_obs: bool = True
    obs_limit: float | None = 10.0
    recent: float = 1.0

    def __post_init__(self):
        if self.soft_value == "network" and self.target_entropy is not None:
            remedy = "choose soft_value='action', whose actions tell the entropy, or a fixed temperature"
            raise error("soft_value", "'network' with a target entropy", "one or the other", remedy)
        if self.soft_value == "network" and getattr(self.actor, "proposal", "policy") != "policy":
            remedy = "choose soft_value='action': the network V learns from candidates of the policy"
            raise error("soft_value", "'network' with another proposal than the policy", "one or the other", remedy)
