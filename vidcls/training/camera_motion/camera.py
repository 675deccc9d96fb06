"""The ten camera motions, and camera paths that make them exactly.

Directions are the camera's own: in `pan left` the camera turns left, so that the picture moves right; in `tilt up` the
picture moves down; in `roll clockwise` the camera turns clockwise as its operator sees it, so that the picture turns
counter-clockwise; in `zoom in` the picture grows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Rng = np.random.Generator

LABELS: tuple[str, ...] = (
    "static",
    "pan left",
    "pan right",
    "tilt up",
    "tilt down",
    "zoom in",
    "zoom out",
    "roll clockwise",
    "roll counter-clockwise",
    "shake",
)
"""The classes; the index is the class id."""

# Label → (channel of the camera state, sign of its change). Channels: 0 pan (right +), 1 tilt (up +),
# 2 log zoom (in +), 3 roll in radians (clockwise +).
MOTION: dict[str, tuple[int, float]] = {
    "pan left": (0, -1.0),
    "pan right": (0, 1.0),
    "tilt up": (1, 1.0),
    "tilt down": (1, -1.0),
    "zoom in": (2, 1.0),
    "zoom out": (2, -1.0),
    "roll clockwise": (3, 1.0),
    "roll counter-clockwise": (3, -1.0),
}

# Total change over a clip, as (least, most), drawn log-uniformly. Pan and tilt in short sides of the frame (so 1.1 is
# about 60 % of the width of a 16:9 picture), zoom as the logarithm of the magnification, roll in radians.
AMPLITUDE: dict[int, tuple[float, float]] = {0: (0.06, 1.2), 1: (0.06, 1.2), 2: (0.06, 0.95), 3: (0.055, 1.3)}

SHAKE_RMS = (0.009, 0.06)
"""Root-mean-square of a shake, in short sides of the frame."""
JITTER_RMS = 0.005
"""The most that an unsteady hand adds to the other classes, in short sides; a shake begins well above it."""


@dataclass(frozen=True)
class Wobble:
    """A sum of sinusoids in every camera channel: an unsteady hand, or at larger amplitude a shake.

    Attributes:
        frequency: (k,) cycles per second.
        phase: (k, 4) radians.
        amplitude: (k, 4) in the units of the channels.
    """

    frequency: np.ndarray
    phase: np.ndarray
    amplitude: np.ndarray

    def __call__(self, times: np.ndarray) -> np.ndarray:
        """Offsets (n, 4) at `times` (n,) in seconds."""
        angle = 2 * np.pi * self.frequency[None, :, None] * times[:, None, None] + self.phase[None]
        return np.asarray((np.sin(angle) * self.amplitude[None]).sum(1))


def make_wobble(rng: Rng, rms: float, band: tuple[float, float], channels: np.ndarray) -> Wobble:
    """Draw a wobble of a given strength.

    Args:
        rng: Source of randomness.
        rms: Root-mean-square of the pan and tilt channels together, in short sides.
        band: Lowest and highest frequency in Hz.
        channels: (4,) relative strength of pan, tilt, log zoom and roll.
    """
    count = int(rng.integers(4, 9))
    frequency = np.exp(rng.uniform(np.log(band[0]), np.log(band[1]), count))
    weight = frequency[:, None] ** -rng.uniform(0.0, 0.8) * rng.uniform(0.3, 1.0, (count, 4))
    weight /= np.sqrt((weight**2).sum(0) / 2)
    strength = channels / np.sqrt((channels[:2] ** 2).sum() + 1e-9)
    return Wobble(frequency, rng.uniform(0, 2 * np.pi, (count, 4)), weight * strength * rms)


@dataclass(frozen=True)
class Profile:
    """How a movement is spread over the clip: a monotone map of [0, 1] onto itself.

    Attributes:
        kind: linear, eased, accelerating, braking, partial, wavy or stepped.
        a: First shape parameter; its meaning depends on the kind.
        b: Second shape parameter.
    """

    kind: str
    a: float = 0.0
    b: float = 1.0

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """Progress (n,) in [0, 1] at relative times `u` (n,)."""
        u = np.clip(u, 0.0, 1.0)
        if self.kind == "eased":
            return np.asarray((1 - self.a) * u + self.a * smoothstep(u))
        if self.kind == "accelerating":
            return np.asarray(u**self.a)
        if self.kind == "braking":
            return np.asarray(1 - (1 - u) ** self.a)
        if self.kind == "partial":
            inner = np.clip((u - self.a) / (self.b - self.a), 0, 1)
            return np.asarray(0.5 * (inner + smoothstep(inner)))
        if self.kind == "wavy":
            return np.asarray(u - self.a * np.sin(2 * np.pi * self.b * u) / (2 * np.pi * self.b))
        if self.kind == "stepped":
            return self.a * smoothstep(np.clip(u / self.b, 0, 1)) + (1 - self.a) * smoothstep(
                np.clip((u - self.b) / (1 - self.b), 0, 1)
            )
        return u


def smoothstep(u: np.ndarray) -> np.ndarray:
    """Cubic ease in and out on [0, 1]."""
    return np.asarray(u * u * (3 - 2 * u))


def make_profile(rng: Rng) -> Profile:
    """Draw a way of spreading a movement over time."""
    kinds = ["linear", "eased", "accelerating", "braking", "partial", "wavy", "stepped"]
    kind = str(rng.choice(kinds, p=[0.22, 0.26, 0.09, 0.09, 0.2, 0.1, 0.04]))
    if kind == "eased":
        return Profile(kind, rng.uniform(0.4, 1.0))
    if kind in ("accelerating", "braking"):
        return Profile(kind, rng.uniform(1.2, 2.2))
    if kind == "partial":
        length = rng.uniform(0.35, 0.9)
        start = rng.uniform(0, 1 - length)
        return Profile(kind, start, start + length)
    if kind == "wavy":
        return Profile(kind, rng.uniform(-0.8, 0.8), float(rng.integers(1, 4)))
    if kind == "stepped":
        return Profile(kind, rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.65))
    return Profile(kind)


@dataclass(frozen=True)
class CameraPath:
    """Where the camera looks at every moment of a clip.

    Attributes:
        label: One of `LABELS`.
        duration: Seconds over which the movement is spread.
        change: (4,) total change of pan, tilt (short sides), log zoom and roll (radians).
        profile: Spread of the main movement over time.
        side_change: (4,) total of the unintended cross-talk in the other channels.
        side_profile: Spread of the cross-talk.
        wobbles: Hand jitter or shake, added up.
        perspective: Field of view over the short side in degrees when pan and tilt turn the camera (the picture's
            perspective changes); 0 when they shift it.
    """

    label: str
    duration: float
    change: np.ndarray
    profile: Profile
    side_change: np.ndarray
    side_profile: Profile
    wobbles: tuple[Wobble, ...] = field(default=())
    perspective: float = 0.0

    def state(self, times: np.ndarray) -> np.ndarray:
        """Camera state (n, 4) at `times` (n,) in seconds; the middle of the movement is near zero."""
        u = times / self.duration
        state = (self.profile(u) - 0.5)[:, None] * self.change
        state = state + (self.side_profile(u) - 0.5)[:, None] * self.side_change
        for wobble in self.wobbles:
            state = state + wobble(times)
        return np.asarray(state)

    def matrices(self, times: np.ndarray, side: float, gain: float = 1.0) -> np.ndarray:
        """Homographies from the screen to the background at `times`.

        Args:
            times: (n,) seconds.
            side: Short side of the frame in pixels.
            gain: Factor on pan and tilt: above 1 for a layer that is nearer than the ground.

        Returns:
            (n, 3, 3) float64; screen and background are in pixels from the center, y down.
        """
        pan, tilt, zoom, roll = self.state(times).T
        pan, tilt = pan * gain, tilt * gain
        shrink = np.exp(-zoom)
        turn = np.zeros((len(times), 3, 3))
        turn[:, 0, 0] = turn[:, 1, 1] = shrink * np.cos(roll)
        turn[:, 1, 0] = shrink * np.sin(roll)
        turn[:, 0, 1] = -turn[:, 1, 0]
        turn[:, 2, 2] = 1
        if not self.perspective:
            turn[:, 0, 2], turn[:, 1, 2] = pan * side, -tilt * side
            return turn
        focal = side / 2 / np.tan(np.radians(self.perspective) / 2)
        return _rotation(np.arctan(pan * side / focal), np.arctan(tilt * side / focal), focal) @ turn


def _rotation(yaw: np.ndarray, pitch: np.ndarray, focal: float) -> np.ndarray:
    """Homographies (n, 3, 3) of a camera that turns right by `yaw` and up by `pitch` (radians)."""
    n = len(yaw)
    about_y = np.tile(np.eye(3), (n, 1, 1))
    about_y[:, 0, 0] = about_y[:, 2, 2] = np.cos(yaw)
    about_y[:, 0, 2], about_y[:, 2, 0] = np.sin(yaw), -np.sin(yaw)
    about_x = np.tile(np.eye(3), (n, 1, 1))
    about_x[:, 1, 1] = about_x[:, 2, 2] = np.cos(pitch)
    about_x[:, 1, 2], about_x[:, 2, 1] = -np.sin(pitch), np.sin(pitch)
    lens = np.diag([focal, focal, 1.0])
    return np.asarray(lens @ about_y @ about_x @ np.linalg.inv(lens))


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _cross_talk(rng: Rng, channel: int, amount: float) -> np.ndarray:
    """Unintended change (4,) beside a main movement: clearly weaker than it, as motion in the picture."""
    # Motion that the main change causes near the border of the frame, in short sides.
    reach = amount if channel < 2 else amount * 0.5
    side = rng.uniform(-1, 1, 4) * reach * np.array([0.28, 0.28, 0.3, 0.3]) * rng.uniform(0, 1)
    side[channel] = 0.0
    return np.asarray(side)


def _hand(rng: Rng, most: float) -> tuple[Wobble, ...]:
    """An unsteady hand in half of the clips."""
    if rng.random() < 0.5:
        return ()
    channels = np.array([1.0, rng.uniform(0.5, 1.5), rng.uniform(0, 0.3), rng.uniform(0, 0.8)])
    return (make_wobble(rng, rng.uniform(0.05, 1.0) * most, (0.6, 7.0), channels),)


def make_path(rng: Rng, label: str, duration: float, busy: bool = False) -> CameraPath:
    """Draw a camera path.

    Args:
        rng: Source of randomness.
        label: One of `LABELS`.
        duration: Length of the clip in seconds.
        busy: Let the hand that makes a large movement be as unsteady as in hand-held footage.

    Raises:
        KeyError: The label is none of `LABELS`.
    """
    perspective = float(rng.uniform(20, 50)) if rng.random() < 0.2 else 0.0
    none = np.zeros(4)
    if label == "static":
        drift = rng.uniform(-1, 1, 4) * 0.008 * (rng.random() < 0.5)
        wobbles = _hand(rng, JITTER_RMS)
        return CameraPath(label, duration, none, Profile("linear"), drift, make_profile(rng), wobbles)
    if label == "shake":
        return CameraPath(
            label, duration, none, Profile("linear"), none, Profile("linear"), _shake(rng, duration)
        )
    channel, sign = MOTION[label]
    low, high = AMPLITUDE[channel]
    amount = _log_uniform(rng, low, high)
    if rng.random() < 0.3:  # favor the middle: most real moves are neither creeping nor whipping
        amount = _log_uniform(rng, low * 2, high / 2)
    change = none.copy()
    change[channel] = sign * amount
    side = _cross_talk(rng, channel, amount) if rng.random() < 0.6 else none
    # A hand shakes less than the movement it makes.
    hand = _hand(rng, min(JITTER_RMS * 1.6, 0.12 * amount))
    if busy and rng.random() < 0.6:
        reach = amount if channel < 2 else amount * 0.5
        channels = np.array([1.0, rng.uniform(0.5, 1.8), rng.uniform(0, 0.3), rng.uniform(0, 0.6)])
        hand = (make_wobble(rng, rng.uniform(0.1, 1.0) * min(0.04, 0.2 * reach), (0.6, 6.0), channels),)
    profile = make_profile(rng)
    side_profile = profile if rng.random() < 0.5 else make_profile(rng)
    # A wide turn in perspective would look past the edge of any flat background.
    perspective = perspective if channel > 1 or amount < 0.8 else 0.0
    return CameraPath(label, duration, change, profile, side, side_profile, hand, perspective)


def _shake(rng: Rng, duration: float) -> tuple[Wobble, ...]:
    """Irregular jitter without a steady drift: in both directions, mostly upright, or mostly sideways."""
    rms = _log_uniform(rng, *SHAKE_RMS)
    lean = float(np.clip(rng.normal(0, 0.5), -1, 1))
    channels = np.array([1 + lean, 1 - lean, rng.uniform(0, 0.3) * (rng.random() < 0.4), rng.uniform(0, 0.8)])
    channels = channels + 1e-3
    # At least about three swings in the clip: slower ones would be a pan there and back.
    slowest = max(1.2, 2.5 / duration)
    fast = make_wobble(rng, rms, (slowest, max(rng.uniform(4, 10), 1.3 * slowest)), channels)
    return (fast,)
