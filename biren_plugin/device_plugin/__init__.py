"""Offers cards through the kubelet's device plugin API: one supervised subtree for each resource."""
