"""All that the oracle's draws can be replayed for."""

from __future__ import annotations

from tests.unit.corruptions import replay_blur, replay_digital, replay_elastic, replay_noise, replay_weather
from tests.unit.corruptions.parity import Replay

REPLAYS: dict[str, Replay] = {
    **replay_noise.REPLAYS,
    **replay_blur.REPLAYS,
    **replay_weather.REPLAYS,
    **replay_digital.REPLAYS,
    **replay_elastic.REPLAYS,
}
