"""Offers cards through Dynamic Resource Allocation: one supervised subtree for the driver."""
