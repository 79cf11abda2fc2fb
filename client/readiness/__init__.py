"""Whether a site's data are ready for a study: looked at before round 1, whole, and past the first fault.

A round refuses data that break the contract at their first broken cell. This package reads everything once, keeps
only what its checks need, and names all that it finds. Its findings are for the people of the site; ``consortium``
makes the part that others may see.
"""

from wardround.client.readiness.checks import CHECKS, check
from wardround.client.readiness.consortium import for_consortium
from wardround.client.readiness.finding import Finding, Severity
from wardround.client.readiness.gathered import Gathered, gather

__all__ = ["CHECKS", "Finding", "Gathered", "Severity", "check", "for_consortium", "gather"]
