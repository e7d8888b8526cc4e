package peers;

import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/** Flink SQL, tumbling windows, to where the input ends: the arguments of {@link FlinkStream}. */
public class FlinkSql {
  public static void main(String[] arguments) throws Exception {
    String bootstrap = arguments[0], input = arguments[1], output = arguments[2];
    if (!arguments[4].equals("tumbling")) {
      throw new IllegalArgumentException(arguments[4]);
    }
    StreamExecutionEnvironment environment =
        StreamExecutionEnvironment.getExecutionEnvironment(Settings.of(arguments[3], arguments[5], arguments[6]));
    environment.setParallelism(Integer.parseInt(arguments[7]));
    StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
    tables.getConfig().set("table.local-time-zone", "UTC");
    tables.getConfig().set("table.exec.mini-batch.enabled", "true");
    tables.getConfig().set("table.exec.mini-batch.allow-latency", "1 s");
    tables.getConfig().set("table.exec.mini-batch.size", "5000");
    tables.getConfig().set("table.optimizer.agg-phase-strategy", "TWO_PHASE");
    tables.executeSql("""
        CREATE TABLE orders (
          user_id STRING, country STRING, amount DOUBLE, ts BIGINT,
          event_time AS TO_TIMESTAMP_LTZ(ts, 3),
          WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND
        ) WITH (
          'connector' = 'kafka', 'topic' = '%s', 'properties.bootstrap.servers' = '%s', 'format' = 'json',
          'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset',
          'properties.isolation.level' = 'read_committed'
        )""".formatted(input, bootstrap));
    tables.executeSql("""
        CREATE TABLE totals (
          user_id STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), orders BIGINT, total_cents BIGINT
        ) WITH (
          'connector' = 'kafka', 'topic' = '%1$s', 'properties.bootstrap.servers' = '%2$s', 'format' = 'json',
          'key.format' = 'raw', 'key.fields' = 'user_id',
          'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '%1$s',
          'properties.transaction.timeout.ms' = '600000', 'properties.compression.type' = 'lz4',
          'properties.linger.ms' = '%3$s', 'properties.batch.size' = '500000'
        )""".formatted(output, bootstrap, arguments[9]));
    tables.executeSql("""
        INSERT INTO totals
        SELECT user_id, window_start, window_end, COUNT(*), SUM(CAST(amount * 100 AS BIGINT))
        FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
        WHERE amount > 1.0 AND country <> 'XX'
        GROUP BY user_id, window_start, window_end""").await();
  }
}
