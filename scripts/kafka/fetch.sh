#!/bin/sh
# Fetches Apache Kafka from Maven Central into .cache/kafka/lib: 46 jars, 44 MB, for tests only. Safe to
# call again: it then only compares them. Each jar must be the one of jars.sha256, and none may be there besides,
# because all of them are on the broker's class path. After a change of pom.xml that list is made anew, by hand:
#
#   (cd .cache/kafka/lib && sha256sum -- *.jar) >scripts/kafka/jars.sha256
set -eu
cd "$(dirname "$0")/../.."

pom=scripts/kafka/pom.xml
sums=$PWD/scripts/kafka/jars.sha256
cache=.cache/kafka
version=$(cksum <"$pom")

# Prints which jars are not those of the list.
differences() {
    (cd "$cache/lib" && sha256sum --check --strict --quiet "$sums" 2>&1 || true
     ls -A | LC_ALL=C sort >../found && sed 's/^[^ ]*  //' "$sums" | LC_ALL=C sort | LC_ALL=C comm -13 - ../found)
}

if [ "$(cat "$cache/version" 2>/dev/null)" != "$version" ]; then
    rm -rf "$cache"
    mkdir -p "$cache"
    echo "fetching Apache Kafka from Maven Central (44 MB)" >&2
    # The plugin is Maven's own default, named so that it does not change by itself.
    if ! mvn --batch-mode --quiet --strict-checksums -Dstyle.color=never --file "$pom" \
            org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies \
            -DoutputDirectory="$PWD/$cache/lib" -DincludeScope=runtime >&2; then
        echo "kafka/fetch.sh: Maven could not download Apache Kafka; its message is above" >&2
        exit 1
    fi
fi

different=$(differences)
if [ -n "$different" ]; then
    echo "$different" >&2
    echo "kafka/fetch.sh: $cache/lib has not the jars of scripts/kafka/jars.sha256 (above); remove $cache and try again" >&2
    exit 1
fi

# Written last: an interrupted run starts over.
echo "$version" >"$cache/version"
