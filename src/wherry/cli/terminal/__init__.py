"""What a person sees and types while a command lasts.

device     the terminal itself: raw mode, its size
signals    signals as events of a poll loop        detach     the keys that leave a container running
interact   our terminal or pipes on one side, a hijacked stream on the other
attached   a container's streams joined to ours: run, start -a, attach
progress   what a pull, a load or a save has done so far
live       a view that is drawn again whenever there is news: stats, top
manylogs   several containers' logs at once
"""
