"""Room ood."""
