"""The work: verbs, claims, the pool of worker processes and the periodic jobs."""
