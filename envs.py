"""`import poise.envs` makes every task of Poise known to Gymnasium, as sim/gymnasium_envs.py says.

Gymnasium loads it by itself where an id names it: `gymnasium.make("poise.envs:poise/reach-fr3-v0")`.
"""

from .sim.gymnasium_envs import register

register()
