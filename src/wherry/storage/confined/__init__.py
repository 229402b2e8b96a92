"""Confined children: hostile bytes are read by a separate process with almost no rights.

The files in this directory run in the daemon: they start children (:mod:`wherry.storage.confined.children`)
and read their results. The files in ``child/`` run in a child, where the hostile bytes are; no other code
imports them. Both sides of one kind of child have the same name:

============== ============ =============================== ================================ ======
file           role         hostile bytes                   its root                         keeps
============== ============ =============================== ================================ ======
unpack         unpack       a layer's blob                  the layer's directory            WRITES
unpack         decompress   any compressed stream           an empty directory               WRITES
containerfiles stat, read,  a container's names and files   the container's own, with what   READS
               export                                       is mounted in it
containerfiles write        the same, a client's archive    the same                         WRITES
containerfiles changes      the same (its layer, held by    its image, read-only             FINDS
                            descriptor)
build_files    checksum     a stage's or a context's files  the sources, read-only           READS
build_files    copy         the same, archives among them,  the sources, read-only, and the  WRITES
                            the step's files                step's files
build_files    directory    the step's files                the step's files                 WRITES
build_files    receive      a client's archive              the context that is filled       WRITES
============== ============ =============================== ================================ ======

Capabilities (:mod:`wherry.storage.confined.child.lockdown`); all others are dropped for good:

====== =======================================================================================
READS  DAC_READ_SEARCH
WRITES CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP
FINDS  DAC_READ_SEARCH, and SYS_ADMIN, without which ``trusted.overlay.opaque`` is not shown
====== =======================================================================================

A child is a new Python process, or, if one ran within the last minute, a fork of the fork server
(:mod:`wherry.linux.forkserver`), which has imported the same modules already. A fork has the same
descriptors, and does the same steps in the same order. The server itself reads no hostile byte and shares no
memory with its jobs. Once a job is shut in, it can neither signal nor inspect the server, nor change its
limits, priority or processors. One thing is weaker: forks of one server have the same addresses and the same
hash seed, so what somebody found out about one child's memory would be true of the next one's. No result
contains addresses.

A copy of many files is shared with forks of the child itself, at most one for each further processor: they
are shut in as it is, and end with it (:mod:`wherry.storage.confined.child.helpers`).

The following is true for each child (:mod:`wherry.linux.confine`) before it reads hostile bytes, except for
the six bytes that identify a compression:

- It ends with the thread that started it, or with the fork server, which ends with its thread. Only a
  process with CAP_SYS_PTRACE can inspect it.
- It has its own mount, network and IPC namespaces. One exception: ``stat``, ``read`` and ``write`` join the
  mount namespace of a running container and stay in the daemon's network namespace, where the filter below
  forbids all sockets.
- Nothing is above its root. Its open descriptors are only files, pipes, and directories that are mounts of
  their own. In mounts that it makes itself, set-user-id bits, device nodes and programs have no effect.
- It has imported everything that it will need, and gets no new code: Python finds nothing to import, and no
  memory can become executable. So no library of a container is ever loaded.
- It has no_new_privs and limits: 1 GiB of memory, 32 to 256 descriptors, no core dump.
- A filter (seccomp) forbids what no child needs: programs, signals, sockets, mounts, namespaces, tracing, and
  what root may do to root's other processes without any capability (limits, priorities, processors).

``tests/integration/test_security_children.py`` tries to break in from outside,
``tests/unit/storage/confined`` to break out from inside, both with and without the fork server;
``tests/unit/linux/test_forkserver.py`` tries to get at the server from a job.
"""
