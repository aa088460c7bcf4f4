"""Which cards are healthy: probes find faults, verdicts follow from them, recovery takes time."""
