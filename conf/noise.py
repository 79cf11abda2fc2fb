"""The least noise that keeps what a plan promises."""

from wardround.protocol.plan import PrivacyMode


def least_noise(
    mode: PrivacyMode,
    epsilon: float | None,
    epsilon_consortium: float | None,
    delta: float | None,
    sampling_probability: float | None,
    sums: int | None,
    honest: int,
) -> float | None:
    """The smallest noise multiplier with which ``sums`` sums over Poisson samples keep the epsilons at ``delta``.

    In mode dist that of a share, of which ``honest`` are in every sum, and they keep ``epsilon_consortium`` together.
    None where a term is missing: the plan then says which. Raises UsageError where no noise is enough.
    """
    from wardround.privacy.accounting import calibrate_noise_multiplier
    from wardround.privacy.shares import share_of

    if mode is PrivacyMode.NONE or not (epsilon and delta and sampling_probability and sums):
        return None
    noise = calibrate_noise_multiplier(epsilon, delta, sampling_probability, sums)
    if mode is PrivacyMode.DIST and epsilon_consortium is not None:
        together = calibrate_noise_multiplier(epsilon_consortium, delta, sampling_probability, sums)
        noise = max(noise, share_of(together, honest))
    return noise
