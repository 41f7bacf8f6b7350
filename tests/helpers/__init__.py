"""What several tests use: fixtures, reference implementations, tolerances."""
