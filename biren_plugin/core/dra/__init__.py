"""The rules of Dynamic Resource Allocation: slices, claims, and what a claim's containers get."""
