# Formats an empty volume, then becomes the broker. KAFKA_PORT is where the host reaches it.
set -e
conf=/tmp/server.properties
cp /etc/boltmesh/server.properties $conf
echo "advertised.listeners=INSIDE://kafka:9092,HOST://127.0.0.1:$KAFKA_PORT" >>$conf
set -- java -Xms256m -Xmx512m -XX:+UseG1GC -XX:MaxGCPauseMillis=50 -XX:+ExitOnOutOfMemoryError \
  -Dlog4j2.configurationFile=/etc/boltmesh/log4j2.properties -cp '/opt/kafka/libs/*'
"$@" kafka.tools.StorageTool format --ignore-formatted --cluster-id Ym9sdG1lc2gtY29tcG9zZQ --config $conf
exec "$@" kafka.Kafka $conf
