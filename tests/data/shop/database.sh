#!/bin/sh
# Make the cluster at the first start, with the password from the secret, and serve.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb -A scram-sha-256 --pwfile=/run/secrets/password >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp
