"""What the lanes share: pipelines, faults, models of what should happen, and what is expected."""
