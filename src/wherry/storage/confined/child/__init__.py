"""The code that runs in a confined child; :mod:`wherry.storage.confined` lists its rights.

    unpack containerfiles build_files   the children: each has a ``main`` that gives up all rights it can do
                                        without, and then does what its role says
    lockdown                            how rights are given up, alike for all of them

    decompress                          streams to plain bytes
    apply extract                       an archive to files: a layer's, anybody's
    archive changes                     files to an archive, or to what differs
    copy trees                          files to files
    helpers                             forks of a child that do parts of its work on other processors
    members                             what ``apply``, ``extract`` and ``copy`` do with each file

A child is started for each layer and each copy, so these modules import only what they need.
"""
