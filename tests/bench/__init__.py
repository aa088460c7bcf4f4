"""The project's figures, each beside its target: `nox -s bench`.

The daemon, the kubelet and the load client are processes of their own. Machines drift: compare
figures of one run, above all their ratios to the floors, which are measured in the same run.
"""
