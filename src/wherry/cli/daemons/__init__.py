"""Commands that deal with daemons: this machine's own, or several at once.

local     starts the daemon of this machine in the background, finds it again, stops it
several   one request to the daemons of several contexts at the same time
"""
