"""Which cards are healthy: probes find faults, verdicts follow from faults, recovery takes time."""
