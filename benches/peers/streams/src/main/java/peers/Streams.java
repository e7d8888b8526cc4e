package peers;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;

/**
 * Kafka Streams, exactly_once_v2: BOOTSTRAP INPUT OUTPUT DIR JOB COMMIT_MS THREADS ORDERS LINGER_MS. The input is keyed by user, so nothing is
 * repartitioned. Ends after so many orders, with 0 never; windows that no later record closes stay open.
 */
public class Streams {
  record Total(long orders, long cents) {
    Total with(Order order) {
      return new Total(orders + 1, cents + order.cents());
    }
  }

  static Serde<Total> totals() {
    return Serdes.serdeFrom(
        (topic, total) -> total == null
            ? null : ByteBuffer.allocate(16).putLong(total.orders()).putLong(total.cents()).array(),
        (topic, bytes) -> {
          if (bytes == null) {
            return null;
          }
          ByteBuffer buffer = ByteBuffer.wrap(bytes);
          return new Total(buffer.getLong(), buffer.getLong());
        });
  }

  static Serde<Order> orders(AtomicLong seen) {
    return Serdes.serdeFrom((topic, order) -> null, (topic, json) -> {
      seen.incrementAndGet();
      try {
        return Order.parse(json);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    });
  }

  static String row(Windowed<String> key, Total total) {
    return "{\"user_id\":\"" + key.key() + "\",\"window_start\":" + key.window().start() + ",\"window_end\":"
        + key.window().end() + ",\"orders\":" + total.orders() + ",\"total_cents\":" + total.cents() + "}";
  }

  static KStream<String, String> windowed(KStream<String, Order> orders, Serde<Order> serde, Duration size) {
    return orders
        .filter((user, order) -> order.counts())
        .groupByKey(Grouped.with(Serdes.String(), serde))
        .windowedBy(TimeWindows.ofSizeAndGrace(size, Duration.ofSeconds(5)))
        .emitStrategy(EmitStrategy.onWindowClose())
        .aggregate(() -> new Total(0, 0), (user, order, total) -> total.with(order),
            Materialized.with(Serdes.String(), totals()))
        .toStream()
        .map((key, total) -> org.apache.kafka.streams.KeyValue.pair(key.key(), row(key, total)));
  }

  static KStream<String, String> stateless(KStream<String, Order> orders) {
    return orders
        .filter((user, order) -> !"XX".equals(order.country))
        .mapValues(order -> "{\"user_id\":\"" + order.user + "\",\"order_id\":" + order.id + ",\"cents\":" + order.cents()
            + ",\"country\":\"" + order.country + "\",\"ts\":" + order.time + "}");
  }

  public static void main(String[] arguments) throws Exception {
    String bootstrap = arguments[0], input = arguments[1], output = arguments[2];
    long commitMs = Long.parseLong(arguments[5]), expected = Long.parseLong(arguments[7]);
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, output);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, commitMs);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments[6]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[3]);
    settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    // The orders are months old by their event times, by which Kafka deletes: their state must be there when it is restored.
    settings.put(StreamsConfig.WINDOW_STORE_CHANGE_LOG_ADDITIONAL_RETENTION_MS_CONFIG, Duration.ofDays(3650).toMillis());
    settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    // A member by name: after a death it comes back at once, and nobody waits for its session to time out.
    settings.put(StreamsConfig.consumerPrefix("group.instance.id"), output);
    settings.put(StreamsConfig.producerPrefix("transaction.timeout.ms"), 600000);
    settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
    settings.put(StreamsConfig.producerPrefix("linger.ms"), arguments[8]);
    settings.put(StreamsConfig.producerPrefix("batch.size"), 500000);
    AtomicLong seen = new AtomicLong();
    Serde<Order> serde = orders(seen);
    StreamsBuilder builder = new StreamsBuilder();
    KStream<String, Order> orders = builder.stream(input, Consumed.with(Serdes.String(), serde)
        .withTimestampExtractor((ConsumerRecord<Object, Object> record, long before) -> ((Order) record.value()).time));
    KStream<String, String> answer = switch (arguments[4]) {
      case "tumbling" -> windowed(orders, serde, Duration.ofMinutes(1));
      case "day" -> windowed(orders, serde, Duration.ofDays(1));
      case "stateless" -> stateless(orders);
      default -> throw new IllegalArgumentException(arguments[4]);
    };
    answer.to(output, Produced.with(Serdes.String(), Serdes.String()));
    try (KafkaStreams streams = new KafkaStreams(builder.build(), settings)) {
      streams.start();
      while (expected == 0 || seen.get() < expected) {
        Thread.sleep(50);
      }
      // The last ones have been read, not yet been committed.
      Thread.sleep(2 * commitMs + 1000);
    }
  }
}
