#!/bin/sh
# Fetches Apache Kafka from Maven Central into .cache/kafka/lib: 46 jars, 44 MB, for tests only. Safe to
# call again: it does nothing when they are there.
set -eu
cd "$(dirname "$0")/../.."

pom=scripts/kafka/pom.xml
cache=.cache/kafka
version=$(cksum <"$pom")

[ "$(cat "$cache/version" 2>/dev/null)" = "$version" ] && exit 0

rm -rf "$cache"
mkdir -p "$cache"
echo "fetching Apache Kafka from Maven Central (44 MB)" >&2
if ! mvn --batch-mode --quiet -Dstyle.color=never --file "$pom" dependency:copy-dependencies \
        -DoutputDirectory="$PWD/$cache/lib" -DincludeScope=runtime >&2; then
    echo "kafka/fetch.sh: Maven could not download Apache Kafka; its message is above" >&2
    exit 1
fi

# Written last: an interrupted run starts over.
echo "$version" >"$cache/version"
