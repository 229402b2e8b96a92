"""``wherry build``: from its flags to the files that it writes here.

build     one build, the order of things         flags     what the values of its flags mean
source    Dockerfile and main context            request   the query for the daemon
sending   contexts and the request, on their way
screen    the display of progress                calls     what ``--call`` prints
outputs   what is fetched and written at the end
"""
