#!/bin/sh
# Runs one Apache Kafka broker in the foreground, for tests and for trying things out: KRaft mode, no
# ZooKeeper, listening on 127.0.0.1 only. The process becomes the broker, so a signal to it is a
# signal to the broker.
#
#   scripts/kafka.sh FOLDER PORT CONTROLLER_PORT [PROXIED_PORT PROXY_PORT]
#
# FOLDER holds everything: the log, the configuration and, at the first start, a fresh identity. With
# the same FOLDER and ports a broker goes on where it was killed. `scripts/setup.sh --tests` fetches
# what this needs into .cache/kafka/lib. Who connects to PROXIED_PORT is told to come back through PROXY_PORT, where a
# test has put something that can be cut.
set -eu

[ $# = 3 ] || [ $# = 5 ] || {
    echo "usage: scripts/kafka.sh FOLDER PORT CONTROLLER_PORT [PROXIED_PORT PROXY_PORT]" >&2
    exit 2
}
port=$2
controller=$3
proxied=${4:+,PROXIED://127.0.0.1:$4}
proxy=${5:+,PROXIED://127.0.0.1:$5}
jars=$(cd "$(dirname "$0")/.." && pwd)/.cache/kafka/lib
[ -e "$jars/../version" ] || { echo "kafka.sh: Apache Kafka is not in $jars; run scripts/setup.sh --tests" >&2; exit 1; }
command -v java >/dev/null || { echo "kafka.sh: java is missing; run scripts/setup.sh --tests" >&2; exit 1; }
mkdir -p "$1"
cd "$1"

# One broker: nothing has a second copy. Groups settle at once instead of waiting for members that will
# never come, and a member that was killed is missed within seconds.
cat >server.properties <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=CLIENTS://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller$proxied
advertised.listeners=CLIENTS://127.0.0.1:$port$proxy
listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=CLIENTS
controller.listener.names=CONTROLLER
log.dirs=log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
# A restarted broker waits for the end of the session it had before: 2 s instead of 9 s.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=2
PROPERTIES

cat >log4j2.xml <<'XML'
<Configuration status="WARN">
  <Appenders>
    <Console name="stdout"><PatternLayout pattern="%d %p %c: %m%n"/></Console>
  </Appenders>
  <Loggers>
    <Root level="WARN"><AppenderRef ref="stdout"/></Root>
    <!-- Says when the broker is ready. -->
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
  </Loggers>
</Configuration>
XML

# Small and soon there, rather than fast after an hour.
options="-Xms256m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true
         -Dlog4j2.configurationFile=log4j2.xml"
# shellcheck disable=SC2086 # words on purpose
[ -e log/meta.properties ] || {
    id=$(java $options -cp "$jars/*" kafka.tools.StorageTool random-uuid)
    java $options -cp "$jars/*" kafka.tools.StorageTool format --cluster-id "$id" --config server.properties
}
# shellcheck disable=SC2086
exec java $options -cp "$jars/*" kafka.Kafka server.properties
