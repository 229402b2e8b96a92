"""A face: what the daemon does in numbers, in Prometheus's text format (``wherryd --metrics-addr``).

``counts`` counts while the daemon works, ``reading`` reads the rest when somebody asks, ``server`` answers.
The daemon imports this room only with that flag. What dockerd counts has dockerd's names, what containers use
cAdvisor's, so that dashboards for either work; ours begin with ``wherry_``. ``docs/operate.md`` lists them.
"""
