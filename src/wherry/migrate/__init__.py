"""Takes over what a stopped Docker has kept, and writes everything out as archives again.

``bolt`` reads the databases of dockerd and containerd, ``dockerroot`` says what is below a root, ``graph``
and ``containerd`` give its images as archives, ``definitions`` turns networks, volumes and containers into
requests, and ``takeover`` carries out a plan by the API alone. Nothing of the source is ever written.
``exporting`` is the way back.
"""
