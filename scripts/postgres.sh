#!/bin/sh
# Runs one PostgreSQL server in the foreground, for tests and for trying things out: trusted on
# 127.0.0.1, and listening there only. The process becomes the server, so a signal to it is a signal to
# the server.
#
#   scripts/postgres.sh FOLDER PORT
#
# FOLDER holds the cluster, made at the first start; the server goes on where it was killed. The
# superuser is `postgres`. As root, everything runs as the user `postgres`: the server refuses root.
# FRAMEHOOK_TEST_FSYNC=off trades safety in a power cut for speed.
set -eu

[ $# = 2 ] || { echo "usage: scripts/postgres.sh FOLDER PORT" >&2; exit 2; }
folder=$1
port=$2
# The newest that is installed.
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$bin/initdb" ] || { echo "postgres.sh: PostgreSQL is missing; run scripts/setup.sh --tests" >&2; exit 1; }

# A change of user takes the signal away that ends the server with its parent: it is set again.
as=
if [ "$(id -u)" = 0 ]; then
    as="setpriv --reuid=postgres --regid=postgres --clear-groups --pdeathsig KILL"
fi
mkdir -p "$folder"
if [ ! -e "$folder/PG_VERSION" ]; then
    [ -z "$as" ] || chown postgres "$folder"
    $as "$bin/initdb" --pgdata="$folder" --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync
fi
exec $as "$bin/postgres" -D "$folder" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c max_connections=200 -c fsync="${FRAMEHOOK_TEST_FSYNC:-on}"
