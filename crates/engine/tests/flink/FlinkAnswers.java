import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import org.apache.flink.api.common.ExecutionConfig;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.common.eventtime.WatermarkGenerator;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.EventTimeSessionWindows;
import org.apache.flink.streaming.api.windowing.assigners.SlidingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.assigners.WindowAssigner;
import org.apache.flink.streaming.api.windowing.triggers.EventTimeTrigger;
import org.apache.flink.streaming.api.windowing.triggers.Trigger;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.Schema;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

/**
 * What Flink makes of cases: FlinkAnswers IN OUT. OUT is IN (see case.rs for the format) with Flink's answers: every row that it emits, in
 * order, and every event that it calls late. Answers that IN has are left out.
 *
 * <p>The answers are those of the DataStream API. Where no lateness is allowed, which SQL has no word for, Flink SQL's window functions must
 * give the same rows.
 */
public class FlinkAnswers {
  /** Cases that share a job: starting one costs more than running it. */
  static final int CASES_A_JOB = 40;

  /** By case, and "late " or "sql " and case. The job runs in this process. */
  static final Map<String, List<String>> ANSWERS = new ConcurrentHashMap<>();

  static final OutputTag<String> LATE = new OutputTag<>("late", Types.STRING);
  static final TypeInformation<Tuple2<Long, Long>> TOTAL = Types.TUPLE(Types.LONG, Types.LONG);

  /** A block of the file. */
  static class Case {
    final List<String> lines = new ArrayList<>();
    final List<String> steps = new ArrayList<>();
    String name;
    String kind;
    final Map<String, Long> numbers = new HashMap<>();

    void add(String line) {
      String first = word(line, 0);
      if (first.equals("row") || first.equals("late")) {
        return;
      }
      lines.add(line);
      if (first.equals("event") || first.equals("watermark")) {
        steps.add(line);
      } else if (first.equals("case")) {
        name = word(line, 1);
        kind = word(line, 2);
        String[] words = line.split(" ");
        for (int at = 3; at < words.length; at++) {
          String[] parts = words[at].split("=");
          numbers.put(parts[0], Long.parseLong(parts[1]));
        }
      }
    }

    long number(String name) {
      return numbers.getOrDefault(name, 0L);
    }

    Duration duration(String name) {
      return Duration.ofMillis(number(name));
    }
  }

  static String word(String line, int at) {
    return line.split(" ")[at];
  }

  static long time(String step) {
    return Long.parseLong(word(step, step.startsWith("event") ? 3 : 1));
  }

  /** A watermark of ours promises that nothing earlier comes; one of Flink's, that nothing of that very instant does, either. */
  static class Told implements WatermarkGenerator<String> {
    @Override
    public void onEvent(String step, long time, WatermarkOutput output) {
      if (step.startsWith("watermark")) {
        output.emitWatermark(new Watermark(time - 1));
      }
    }

    @Override
    public void onPeriodicEmit(WatermarkOutput output) {}
  }

  /** The windows of CUMULATE, which the DataStream API lacks: those of a period begin together, and one ends with each step. */
  static class Cumulative extends WindowAssigner<Object, TimeWindow> {
    final long size;
    final long every;
    final long offset;

    Cumulative(long size, long every, long offset) {
      this.size = size;
      this.every = every;
      this.offset = offset;
    }

    @Override
    public Collection<TimeWindow> assignWindows(Object event, long time, WindowAssignerContext context) {
      long start = TimeWindow.getWindowStartWithOffset(time, offset, size);
      List<TimeWindow> windows = new ArrayList<>();
      for (long end = start + size; end > time; end -= every) {
        windows.add(new TimeWindow(start, end));
      }
      return windows;
    }

    @Override
    public Trigger<Object, TimeWindow> getDefaultTrigger() {
      return EventTimeTrigger.create();
    }

    @Override
    public TypeSerializer<TimeWindow> getWindowSerializer(ExecutionConfig config) {
      return new TimeWindow.Serializer();
    }

    @Override
    public boolean isEventTime() {
      return true;
    }
  }

  static class CountAndSum implements AggregateFunction<String, Tuple2<Long, Long>, Tuple2<Long, Long>> {
    @Override
    public Tuple2<Long, Long> createAccumulator() {
      return Tuple2.of(0L, 0L);
    }

    @Override
    public Tuple2<Long, Long> add(String event, Tuple2<Long, Long> total) {
      return Tuple2.of(total.f0 + 1, total.f1 + Long.parseLong(word(event, 4)));
    }

    @Override
    public Tuple2<Long, Long> getResult(Tuple2<Long, Long> total) {
      return total;
    }

    @Override
    public Tuple2<Long, Long> merge(Tuple2<Long, Long> one, Tuple2<Long, Long> other) {
      return Tuple2.of(one.f0 + other.f0, one.f1 + other.f1);
    }
  }

  static class AsRow extends ProcessWindowFunction<Tuple2<Long, Long>, String, String, TimeWindow> {
    @Override
    public void process(String key, Context context, Iterable<Tuple2<Long, Long>> totals, Collector<String> out) {
      Tuple2<Long, Long> total = totals.iterator().next();
      TimeWindow window = context.window();
      out.collect(row(key, window.getStart(), window.getEnd(), total.f0, total.f1));
    }
  }

  static String row(Object key, long start, long end, Object count, Object sum) {
    return "row " + key + " " + start + " " + end + " " + count + " " + sum;
  }

  /** Keeps what comes, in order. */
  static class Keep extends ProcessFunction<String, Void> {
    final String place;

    Keep(String place) {
      this.place = place;
    }

    @Override
    public void processElement(String answer, Context context, Collector<Void> out) {
      // What docs/flink.md says of the timestamps of Flink's results.
      if (place.startsWith("case ") && context.timestamp() != Long.parseLong(word(answer, 3)) - 1) {
        throw new IllegalStateException(answer + " has the timestamp " + context.timestamp());
      }
      ANSWERS.computeIfAbsent(place, none -> new CopyOnWriteArrayList<>()).add(answer);
    }
  }

  static void keep(DataStream<String> answers, String place) {
    answers.process(new Keep(place), Types.VOID).sinkTo(new DiscardingSink<>());
  }

  static WindowAssigner<Object, TimeWindow> windows(Case given) {
    return switch (given.kind) {
      case "tumbling" -> TumblingEventTimeWindows.of(given.duration("size"), given.duration("offset"));
      case "hopping" -> SlidingEventTimeWindows.of(given.duration("size"), given.duration("every"), given.duration("offset"));
      case "cumulative" -> new Cumulative(given.number("size"), given.number("every"), given.number("offset"));
      case "session" -> EventTimeSessionWindows.withGap(given.duration("gap"));
      default -> throw new IllegalArgumentException(given.kind);
    };
  }

  static void add(Case given, StreamExecutionEnvironment environment, StreamTableEnvironment tables) {
    DataStream<String> events = environment
        .fromData(given.steps, Types.STRING)
        .assignTimestampsAndWatermarks(
            WatermarkStrategy.<String>forGenerator(context -> new Told()).withTimestampAssigner((step, none) -> time(step)))
        .filter(step -> step.startsWith("event"));
    SingleOutputStreamOperator<String> rows = events
        .keyBy(event -> word(event, 2), Types.STRING)
        .window(windows(given))
        .allowedLateness(given.duration("lateness"))
        .sideOutputLateData(LATE)
        .aggregate(new CountAndSum(), new AsRow(), TOTAL, TOTAL, Types.STRING);
    keep(rows, "case " + given.name);
    keep(rows.getSideOutput(LATE), "late " + given.name);
    if (hasSql(given)) {
      keep(sql(given, events, tables), "sql " + given.name);
    }
  }

  static boolean hasSql(Case given) {
    return given.number("lateness") == 0 && !given.kind.equals("session");
  }

  static DataStream<String> sql(Case given, DataStream<String> events, StreamTableEnvironment tables) {
    String every = given.kind.equals("tumbling") ? "" : interval(given.number("every")) + ", ";
    String function = switch (given.kind) {
      case "tumbling" -> "TUMBLE";
      case "hopping" -> "HOP";
      default -> "CUMULATE";
    };
    long period = given.kind.equals("hopping") ? given.number("every") : given.number("size");
    String offset = interval(Math.floorMod(given.number("offset"), period));
    Schema schema = Schema.newBuilder()
        .columnByMetadata("event_time", DataTypes.TIMESTAMP_LTZ(3), "rowtime")
        .watermark("event_time", "SOURCE_WATERMARK()")
        .build();
    DataStream<Tuple2<String, Long>> pairs = events
        .map(event -> Tuple2.of(word(event, 2), Long.parseLong(word(event, 4))))
        .returns(Types.TUPLE(Types.STRING, Types.LONG));
    String table = "events_" + given.name.replace('-', '_');
    tables.createTemporaryView(table, pairs, schema);
    String query = "SELECT f0, window_start, window_end, COUNT(*), SUM(f1) FROM TABLE(" + function + "(TABLE " + table
        + ", DESCRIPTOR(event_time), " + every + interval(given.number("size")) + ", " + offset + ")) GROUP BY f0, window_start, window_end";
    return tables.toDataStream(tables.sqlQuery(query))
        .map(row -> row(row.getField(0), instant(row, 1), instant(row, 2), row.getField(3), row.getField(4)))
        .returns(Types.STRING);
  }

  static String interval(long ms) {
    return "INTERVAL '%d.%03d' SECOND(10, 3)".formatted(ms / 1000, ms % 1000);
  }

  static long instant(Row row, int at) {
    return ((LocalDateTime) row.getField(at)).toInstant(ZoneOffset.UTC).toEpochMilli();
  }

  static List<String> answers(String place) {
    return ANSWERS.getOrDefault(place, List.of());
  }

  static void check(Case given) {
    List<String> rows = answers("case " + given.name).stream().sorted().toList();
    List<String> sql = answers("sql " + given.name).stream().sorted().toList();
    if (hasSql(given) && !rows.equals(sql)) {
      throw new IllegalStateException("Flink SQL answers otherwise than Flink in " + given.lines + ":\n" + rows + "\n" + sql);
    }
  }

  public static void main(String[] arguments) throws Exception {
    List<Case> cases = new ArrayList<>();
    List<String> head = new ArrayList<>();
    for (String line : Files.readAllLines(Path.of(arguments[0]))) {
      if (line.startsWith("case ")) {
        Case next = new Case();
        // Comments right above a case are its own.
        List<String> before = cases.isEmpty() ? head : cases.get(cases.size() - 1).lines;
        int from = before.size();
        while (from > 0 && before.get(from - 1).startsWith("#")) {
          from--;
        }
        next.lines.addAll(before.subList(from, before.size()));
        before.subList(from, before.size()).clear();
        cases.add(next);
      }
      if (line.isEmpty() && !cases.isEmpty()) {
        continue;
      }
      if (cases.isEmpty()) {
        head.add(line);
      } else {
        cases.get(cases.size() - 1).add(line);
      }
    }
    for (int from = 0; from < cases.size(); from += CASES_A_JOB) {
      List<Case> some = cases.subList(from, Math.min(from + CASES_A_JOB, cases.size()));
      StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(1);
      StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
      tables.getConfig().set("table.local-time-zone", "UTC");
      for (Case given : some) {
        add(given, environment, tables);
      }
      environment.execute();
      some.forEach(FlinkAnswers::check);
      System.err.printf("flink-diff: Flink has answered %d of %d%n", from + some.size(), cases.size());
    }
    List<String> written = new ArrayList<>(head);
    for (Case given : cases) {
      written.addAll(given.lines);
      written.addAll(answers("case " + given.name));
      for (String event : answers("late " + given.name)) {
        written.add("late " + word(event, 2) + " " + word(event, 3) + " " + word(event, 4));
      }
      written.add("");
    }
    Files.write(Path.of(arguments[1]), written);
  }
}
