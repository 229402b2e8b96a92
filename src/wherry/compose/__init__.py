"""Compose files: how they are read, and the requests to the daemon that follow from them.

    places     values that know where they stand      yamlfile   text -> such values
    dotenv     .env files and env_file                interpolation   ${NAME:-default}
    kinds      what a value may be, and its one long form; shorthand: the forms that are strings
    schema     every key of a Compose file, as kinds
    merging    several files, one project             extending, including   other files' services
    loading    the order of all this                  project    what comes out
    defaults   what the file leaves unsaid            checks     what fits together
    gojson, output   the project as text              hashing    the hash that containers carry
    labels     what containers carry                  bodies     a service as a request to the daemon

Nothing here prints or asks a terminal; ``cli/commands/compose`` does. The YAML library is imported when a
file is read.

The forms, words and orders are those of the Compose specification (https://compose-spec.io) and of Docker's
plugin 2.40, so that a project begun with one is taken over by the other.
"""
