"""What is beyond noise: layers against each other, and values against their nulls."""
