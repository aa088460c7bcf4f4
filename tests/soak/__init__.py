"""A week in ten minutes: random events for the daemon, and what it leaves behind; `nox -s soak`.

`-- --seconds N` chooses how long, `-- --seed N` replays a run, `-- --restarts N` does nothing but
restart the kubelet that often.
"""
