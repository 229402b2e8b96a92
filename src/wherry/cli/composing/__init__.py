"""Parts that the commands of ``wherry compose`` share.

flags      the flags before a command's name      session    from the flags to a project and a daemon
display    what is shown while things happen      logs       output of containers, each behind its name
"""
