"""Measurements: ratios in one run, beside a peer or a physical limit; absolute times are the machine's."""
