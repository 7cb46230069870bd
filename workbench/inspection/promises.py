"""What a bundle promises of privacy, in words: one for each table of its `[privacy]`. Pure."""

from fleet_protocol.privacy.privacy_plan import PrivacyPlan


def promises(plan: PrivacyPlan | None, steps: int) -> list[str]:
    """What a task with rounds of so many steps promises (docs/privacy.md); nothing without the table."""
    if plan is None:
        return []
    found = []
    if (samples := plan.samples) is not None:
        found.append(
            f"of a sample: epsilon {samples.epsilon:g} at delta {samples.delta:g}, by noise of"
            f" {samples.noise_multiplier:.3g} times a clip of {samples.clip:g} in each step; one round tells"
            f" {samples.epsilon_after(steps):.3g}"
        )
    if (devices := plan.devices) is not None:
        found.append(
            f"of a device, to all but the coordinator: epsilon {devices.epsilon:g} at delta {devices.delta:g} in"
            f" {devices.versions} versions, {devices.noise} noise"
        )
    if (masks := plan.masks) is not None:
        found.append(
            f"of an update: sums of {masks.fewest_devices} devices or more, if at most {masks.colluding} of"
            f" {len(masks.helpers)} mask helpers collude"
        )
        if (noise := masks.noise) is not None:
            found.append(
                f"of a device, to the coordinator too: epsilon {noise.epsilon:g} at delta {noise.delta:g} in"
                f" {noise.at_most} updates, by noise of {noise.deviation} levels on each"
            )
    return found
