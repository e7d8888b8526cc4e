package peers;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.SlidingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.assigners.WindowAssigner;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;

/**
 * Flink's DataStream API: BOOTSTRAP INPUT OUTPUT DIR JOB BACKEND INTERVAL_MS PARALLELISM ORDERS LINGER_MS [CHECKPOINT]. Reads to where
 * the input ends at its start, however many orders that are; with 0 orders, on and on. Goes on from the checkpoint, if there is one.
 */
public class FlinkStream {
  static class Parse extends AbstractDeserializationSchema<Order> {
    @Override
    public Order deserialize(byte[] json) throws IOException {
      return Order.parse(json);
    }
  }

  static class CountAndSum implements AggregateFunction<Order, Tuple2<Long, Long>, Tuple2<Long, Long>> {
    @Override
    public Tuple2<Long, Long> createAccumulator() {
      return Tuple2.of(0L, 0L);
    }

    @Override
    public Tuple2<Long, Long> add(Order order, Tuple2<Long, Long> total) {
      total.f0 += 1;
      total.f1 += order.cents();
      return total;
    }

    @Override
    public Tuple2<Long, Long> getResult(Tuple2<Long, Long> total) {
      return total;
    }

    @Override
    public Tuple2<Long, Long> merge(Tuple2<Long, Long> one, Tuple2<Long, Long> other) {
      one.f0 += other.f0;
      one.f1 += other.f1;
      return one;
    }
  }

  static class Write extends ProcessWindowFunction<Tuple2<Long, Long>, Tuple2<String, String>, String, TimeWindow> {
    @Override
    public void process(
        String user, Context context, Iterable<Tuple2<Long, Long>> totals, Collector<Tuple2<String, String>> out) {
      Tuple2<Long, Long> total = totals.iterator().next();
      out.collect(Tuple2.of(user, "{\"user_id\":\"" + user + "\",\"window_start\":" + context.window().getStart()
          + ",\"window_end\":" + context.window().getEnd()
          + ",\"orders\":" + total.f0 + ",\"total_cents\":" + total.f1 + "}"));
    }
  }

  /** Of a row: the record's key, or its value. */
  record Field(int index) implements SerializationSchema<Tuple2<String, String>> {
    @Override
    public byte[] serialize(Tuple2<String, String> row) {
      String text = row.getField(index);
      return text.getBytes(StandardCharsets.UTF_8);
    }
  }

  static final TypeInformation<Tuple2<String, String>> ROW = Types.TUPLE(Types.STRING, Types.STRING);

  static DataStream<Tuple2<String, String>> windowed(DataStream<Order> orders, WindowAssigner<Object, TimeWindow> windows) {
    return orders
        .filter(Order::counts)
        .keyBy(order -> order.user)
        .window(windows)
        .aggregate(new CountAndSum(), new Write(),
            Types.TUPLE(Types.LONG, Types.LONG), Types.TUPLE(Types.LONG, Types.LONG), ROW);
  }

  static DataStream<Tuple2<String, String>> stateless(DataStream<Order> orders) {
    return orders
        .filter(order -> !"XX".equals(order.country))
        .map(order -> Tuple2.of(order.user,
            "{\"user_id\":\"" + order.user + "\",\"order_id\":" + order.id + ",\"cents\":" + order.cents()
                + ",\"country\":\"" + order.country + "\",\"ts\":" + order.time + "}"))
        .returns(ROW);
  }

  public static void main(String[] arguments) throws Exception {
    String bootstrap = arguments[0], input = arguments[1], output = arguments[2];
    Configuration settings = Settings.of(arguments[3], arguments[5], arguments[6]);
    if (arguments.length > 10) {
      Settings.goOnFrom(settings, arguments[10]);
    }
    StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment(settings);
    environment.setParallelism(Integer.parseInt(arguments[7]));
    KafkaSourceBuilder<Order> source = KafkaSource.<Order>builder()
        .setBootstrapServers(bootstrap)
        .setTopics(input)
        .setGroupId(output)
        .setStartingOffsets(OffsetsInitializer.earliest())
        .setValueOnlyDeserializer(new Parse())
        .setProperty("isolation.level", "read_committed");
    if (!arguments[8].equals("0")) {
      source.setBounded(OffsetsInitializer.latest());
    }
    KafkaSink<Tuple2<String, String>> sink = KafkaSink.<Tuple2<String, String>>builder()
        .setBootstrapServers(bootstrap)
        .setRecordSerializer(KafkaRecordSerializationSchema.<Tuple2<String, String>>builder()
            .setTopic(output)
            .setKeySerializationSchema(new Field(0))
            .setValueSerializationSchema(new Field(1))
            .build())
        .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .setTransactionalIdPrefix(output)
        .setProperty("transaction.timeout.ms", "600000")
        .setProperty("compression.type", "lz4")
        .setProperty("linger.ms", arguments[9])
        .setProperty("batch.size", "500000")
        .build();
    DataStream<Order> orders = environment.fromSource(
        source.build(),
        WatermarkStrategy.<Order>forBoundedOutOfOrderness(Duration.ofSeconds(5))
            .withTimestampAssigner((order, kafka) -> order.time),
        "orders");
    DataStream<Tuple2<String, String>> answer = switch (arguments[4]) {
      case "tumbling" -> windowed(orders, TumblingEventTimeWindows.of(Duration.ofMinutes(1)));
      case "day" -> windowed(orders, TumblingEventTimeWindows.of(Duration.ofDays(1)));
      case "hopping" -> windowed(orders, SlidingEventTimeWindows.of(Duration.ofMinutes(10), Duration.ofMinutes(1)));
      case "stateless" -> stateless(orders);
      default -> throw new IllegalArgumentException(arguments[4]);
    };
    answer.sinkTo(sink);
    environment.execute();
  }
}
